; Runs a table of accesses to ports and memory and writes what is read, a line each, to the debug console at 402h.
;
; A ROM of 64 KiB that boots on any PC with a PIIX4: in real-address mode at F000:0000, with PM's ports opened at 600h.
; The table follows at `script`: an operation's number, then its operands; test_qemu.py writes it.
;
; Registers: DS:SI = F000h, the next operation; ES = 0. LOG holds the vectors of the interrupts that came.
        bits 16
        org 0
CONSOLE equ 402h
PM_TIMER equ 608h
LOG     equ 600h                        ; a word: how many; then a byte each
LOGGED  equ 30                          ; at most
SCRATCH equ 7F0h

%macro configure 2                      ; configuration address, doubleword
        mov dx, 0CF8h
        mov eax, %1
        out dx, eax
        mov dx, 0CFCh
        mov eax, %2
        out dx, eax
%endmacro

start:  cli
        cld
        xor ax, ax
        mov ss, ax
        mov sp, 7000h
        mov es, ax
        mov ds, ax
        xor di, di
        mov cx, 256
        mov ax, stubs
.vector:
        mov [di], ax
        mov word [di + 2], 0F000h
        add di, 4
        add ax, stubs.second - stubs
        loop .vector
        mov word [LOG], 0
        mov ax, 0F000h
        mov ds, ax
        configure 80000B40h, 601h
        configure 80000B80h, 1
        configure 80000B04h, 1
        mov si, script
next:   xor ax, ax
        lodsb
        mov bx, ax
        add bx, bx
        jmp [cs:operations + bx]

operations:
        dw      end, out8, out16, out32, in8, in16, in32, wait_us, until, interrupts, memory_read, memory_write
        dw      in_words, out_words

end:    xor ax, ax
        out 0F4h, al
        hlt

out8:   lodsw                           ; port, byte
        mov dx, ax
        lodsb
        out dx, al
        jmp next
out16:  lodsw
        mov dx, ax
        lodsw
        out dx, ax
        jmp next
out32:  lodsw
        mov dx, ax
        lodsd
        out dx, eax
        jmp next
in8:    lodsw                           ; port
        mov dx, ax
        in al, dx
        call hex8
        jmp newline
in16:   lodsw
        mov dx, ax
        in ax, dx
        call hex16
        jmp newline
in32:   lodsw
        mov dx, ax
        in eax, dx
        push ax
        shr eax, 16
        call hex16
        pop ax
        call hex16
newline:
        mov al, 10
        call character
        jmp next

wait_us:                                ; microseconds
        lodsd
        call delay
        jmp next

; Waits EAX microseconds by the PM timer.
; Clobbers: EAX, EBX, ECX, EDX, EDI
delay:  mov ecx, 3665                   ; ticks in 1024 us
        mul ecx
        shrd eax, edx, 10
        lea edi, [eax + 1]
        mov dx, PM_TIMER
        in eax, dx
        mov ebx, eax
.look:  in eax, dx
        mov ecx, eax
        sub ecx, ebx
        and ecx, 0FFFFFFh
        mov ebx, eax
        sub edi, ecx
        ja .look
        ret

until:                                  ; port, mask, value, microseconds at most: the last value read
        lodsw
        mov bp, ax
        lodsw
        mov [es:SCRATCH], ax
        lodsd
        mov [es:SCRATCH + 4], eax
.look:  mov dx, bp
        in al, dx
        mov [es:SCRATCH + 2], al
        and al, [es:SCRATCH]
        cmp al, [es:SCRATCH + 1]
        je .there
        mov eax, 10
        call delay
        sub dword [es:SCRATCH + 4], 10
        ja .look
.there: mov al, [es:SCRATCH + 2]
        call hex8
        jmp newline

interrupts:                             ; lets them in; their vectors
        sti
        times 20 nop
        mov dx, 80h
        times 10 in al, dx
        cli
        mov cx, [es:LOG]
        mov di, LOG + 2
        jcxz .none
.each:  mov al, [es:di]
        inc di
        call hex8
        loop .each
.none:  mov word [es:LOG], 0
        jmp newline

memory_read:                            ; segment, offset: a word
        lodsw
        mov bx, ax
        lodsw
        mov di, ax
        push ds
        mov ds, bx
        mov ax, [di]
        pop ds
        call hex16
        jmp newline
memory_write:                           ; segment, offset, word
        lodsw
        mov bx, ax
        lodsw
        mov di, ax
        lodsw
        push ds
        mov ds, bx
        mov [di], ax
        pop ds
        jmp next

in_words:                               ; port, count: a checksum of them
        lodsw
        mov dx, ax
        lodsw
        mov cx, ax
        xor bx, bx
.each:  in ax, dx
        add bx, ax
        rol bx, 1
        loop .each
        mov ax, bx
        call hex16
        jmp newline
out_words:                              ; port, count, word
        lodsw
        mov dx, ax
        lodsw
        mov cx, ax
        lodsw
.each:  out dx, ax
        loop .each
        jmp next

; Writes AX or AL in hexadecimal.
; Clobbers: nothing
hex16:  push ax
        mov al, ah
        call hex8
        pop ax
hex8:   push ax
        shr al, 4
        call digit
        pop ax
digit:  push ax
        and al, 15
        add al, '0'
        cmp al, '9'
        jbe .decimal
        add al, 'a' - '9' - 1
.decimal:
        call character
        pop ax
        ret
character:
        push dx
        mov dx, CONSOLE
        out dx, al
        pop dx
        ret

%macro stub 1
        push strict word %1
        jmp near noted
%endmacro
stubs:  stub 0
.second:
%assign vector 1
%rep 255
        stub vector
        %assign vector vector + 1
%endrep
noted:  push bp
        mov bp, sp
        push ax
        push di
        push es
        xor ax, ax
        mov es, ax
        mov di, [es:LOG]
        cmp di, LOGGED
        jae .full
        mov al, [bp + 2]
        mov [es:LOG + 2 + di], al
        inc word [es:LOG]
.full:  pop es
        pop di
        pop ax
        pop bp
        add sp, 2
        iret

        times 1000h - ($ - $$) db 0FFh
script:
