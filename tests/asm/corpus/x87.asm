; The coprocessor as boot code and old programs use it.
        fnop
        fld     dword [bx]
        fld     st0
        fadd
        fadd    st1
        fadd    st0, st1
        fadd    to st1
        fadd    st1, st0
        fsubr   to st7
        fxch
        fxch    st3
        fstp    st0
        fstp    tword [bx]
        fild    qword [bx + 5]
        fistp   word [value]
        fstsw   ax
        fnstsw  [bx]
        fstcw   [es:value]
        fldcw   [bx]
        finit
        fninit
        fsave   [bx]
        frstor  [bx]
        fcom    st1
        fcompp
        fucomip st0, st3
        fsin
        fcmovb  st0, st1
        fisttp  dword [bx]
value:  dt      1.5
bits 32
        movd    mm1, [value]
        movq    xmm1, [ebx + ecx * 4]
        cvtsi2sd xmm0, [value]
        pshufd  xmm0, [value], 0x1b
        cmpltps xmm1, xmm2
        pinsrw  xmm1, [value], 2
        crc32   eax, byte [value]
bits 64
default rel
        vaddps  ymm1, ymm2, [value]
        vaddps  ymm1, [rbx]
        vmovups [value], xmm9
        vfmadd213sd xmm1, xmm2, [rsp + 8]
        vpgatherdd ymm1, [rax + ymm2 * 4], ymm3
        vblendvpd xmm1, xmm2, [value], xmm3
        andn    rax, rbx, [value]
        aesenc  xmm8, [value]
        sha256rnds2 xmm1, xmm2
        vmovq   rax, xmm15
        cvttss2si rax, [value]
