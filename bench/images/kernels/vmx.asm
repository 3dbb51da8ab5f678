; VM round trips: a guest that executes CPUID for ever, and a host that reads exit reason, RIP and instruction length, writes
; RIP and resumes. A turn is one exit and one entry.
; In:  ECX = turns; paging on, IA32_FEATURE_CONTROL not locked or VMX allowed
; Out: EAX = turns made, times 3, plus 1 where every exit was for CPUID

VMXON_REGION    equ DATA
VMCS            equ DATA + 0x1000
VMCS_OTHER      equ DATA + 0x2000
EPT_PML4        equ DATA + 0x3000
EPT_PDPT        equ DATA + 0x4000
EPT_DIRECTORY   equ DATA + 0x5000
PAGE_TABLE      equ DATA + 0x6000       ; the end of what setup_vmx clears
DIRECTORY       equ 0x1000
GUEST_STACK     equ DATA + 0x7000
IMAGE_STACK     equ DATA + 0x8100
NO_PHYSICAL     equ 0x400000            ; EPT maps what lies below

        jmp     vmx

%include "x86.inc"
%include "vmcs.inc"
%include "vmx.inc"
%include "setup.inc"

vmx:
        mov     [turns_left], ecx
        mov     [turns_made], ecx
        mov     [stack], esp
        mov     ecx, IA32_FEATURE_CONTROL
        rdmsr
        test    al, FEATURE_CONTROL_LOCK
        jnz     .locked
        or      al, FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX
        wrmsr
.locked:
        mov     eax, cr0
        or      eax, CR0_NE
        mov     cr0, eax
        call    setup_vmx
        jne     vmx_failed
        call    setup_vmcs
        put_value GUEST_RFLAGS, EFLAGS_RESERVED
        put_value GUEST_RSP, GUEST_STACK
        put_value GUEST_RIP, guest
        mov     ebx, 1
        vmlaunch
        jmp     vmx_failed

guest:
        cpuid
        jmp     guest

vm_exit:
        mov     ecx, EXIT_REASON
        vmread  eax, ecx
        cmp     eax, EXIT_REASON_CPUID
        jne     vmx_failed
        mov     ecx, GUEST_RIP
        vmread  eax, ecx
        mov     edx, VM_EXIT_INSTRUCTION_LENGTH
        vmread  edx, edx
        add     eax, edx
        vmwrite ecx, eax
        dec     dword [turns_left]
        jz      vmx_end
        vmresume
vmx_failed:
        vmxoff
        mov     esp, [stack]
        xor     eax, eax
        ret
vmx_end:
        vmxoff
        mov     esp, [stack]
        imul    eax, [turns_made], 3
        inc     eax
        ret

        align 8
image_gdt:
        dq      0
        dq      DESCRIPTOR_CODE32
        dq      DESCRIPTOR_DATA32
turns_left:     dd 0
turns_made:     dd 0
stack:          dd 0
