; Measures VM exits and entries: a guest in 32-bit protected mode with paging does one thing at a time that exits, and the
; time-stamp counter is read on both sides. Runs wherever there is VT-x; EPT and VPID are used where they are.
;
; Entry: flash.inc says in which state; POST boots it as a guest on the bare machine. It prints on COM1 and turns the machine
; off:
;
;   exit NAME EXIT READS HANDLER WRITES ENTRY   cycles of the VM exit, of four VMREADs, of what else the handler does, of one
;                                               VMWRITE, of the VM entry
;   part NAME CYCLES                            what a switch to another VM takes besides
;
; Memory that it uses:
;
;   01000h            page directory of host and guest: 16 MiB mapped to themselves
;   02000h, 03000h    VMXON region, VMCS; 04000h another VMCS
;   05000h - 07FFFh   EPT tables
;   08000h            page table of 400000h-7FFFFFh
;   0D000h, 0F000h    stacks of guest and host, grow down
;   10000h - ...      the image

%include "x86.inc"
%include "vmcs.inc"
%include "vmx.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"

DIRECTORY       equ 1000h
VMXON_REGION    equ 2000h
VMCS            equ 3000h
VMCS_OTHER      equ 4000h
EPT_PML4        equ 5000h
EPT_PDPT        equ 6000h
EPT_DIRECTORY   equ 7000h
PAGE_TABLE      equ 8000h
GUEST_STACK     equ 0D000h
TOUCHED         equ 400000h             ; pages whose translations are lost by a transition without VPID
TOUCHES         equ 16
NO_LINEAR       equ 0C0000000h          ; not mapped by the page directory
NO_PHYSICAL     equ 0A00000h            ; not mapped by EPT
ROUNDS          equ 8                   ; of each case; the last one counts
READS           equ 4

%include "setup.inc"
%include "cases.inc"

; In:       32-bit protected mode
; Out:      does not return
main:
        call    setup_paging
        call    setup_vmx
        mov     esi, text_no_vmx
        jne     .none
        call    setup_vmcs
        mov     ebx, cases
.case:
        cmp     dword [ebx + case.name], 0
        je      .interrupt
        cmp     dword [ebx + case.needs_ept], 0
        je      .run
        cmp     dword [ept], 0
        je      .next
.run:
        mov     dword [rounds], ROUNDS
.round:
        put_value GUEST_RFLAGS, EFLAGS_RESERVED
        mov     eax, [ebx + case.code]
        put     GUEST_RIP, eax
        put_value GUEST_RSP, GUEST_STACK
        call    case_round
        dec     dword [rounds]
        jnz     .round
        call    case_print
.next:
        add     ebx, case_size
        jmp     .case
.interrupt:
        call    interrupt_measure
        call    state_measure
        call    refill_measure
        mov     esi, text_end
        call    console_text

; Leaves VMX operation and ends. Out: does not return
vmx_leave:
        vmxoff
        jmp     acpi_power_off
main.none:
        call    console_text
        jmp     acpi_power_off

text_no_vmx:
        db      "no VT-x", 13, 10, 0
text_end:
        db      "end", 13, 10, 0
