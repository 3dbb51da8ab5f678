; The Service VM: runs before any guest, then waits for events. It prints what a guest did, looks into the guest, notes it in
; the BMC's event log, reads a sensor, and lets the guest go on.
;
; Entry: flash.inc says in which state. It runs only under the VMM.
;
; Memory that it uses:
;
;   0E000h - 0EFFFh   stack
;   10000h - ...      the image

%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"
%include "kcs.inc"
%include "bmc.inc"
%include "report.inc"

; In:       32-bit protected mode
; Out:      does not return
main:
        mov     esi, text_start
        call    console_text
        call    vmm_present
        mov     esi, text_no_vmm
        jne     .end
        mov     eax, VMCALL_RESOURCES
        mov     edi, resources_buffer
        vmcall
        test    eax, eax
        mov     esi, text_no_resources
        jnz     .end
        mov     eax, [resources_buffer + resources.memory]
        shr     eax, 10
        call    console_decimal
        mov     esi, text_kib
        call    console_text
        mov     eax, [resources_buffer + resources.vms]
        call    console_decimal
        mov     esi, text_vms
        call    console_text
        call    bmc_identify

; Events, one after the other.
next_event:
        mov     eax, VMCALL_NEXT_EVENT
        mov     edi, event_buffer
        vmcall
        test    eax, eax
        mov     esi, text_no_event
        jnz     main.end
        cmp     dword [event_buffer + event.kind], EVENT_NO_GUEST
        mov     esi, text_no_guest
        je      main.end
        call    report_event
        call    bmc_log
        mov     ecx, ACTION_ALLOW
        mov     eax, [event_buffer + event.kind]
        cmp     eax, EVENT_TRAP_MEMORY
        je      .continue
        cmp     eax, EVENT_POWER_OFF
        je      next_event
        mov     ecx, ACTION_STOP
.continue:
        mov     eax, VMCALL_CONTINUE
        mov     ebx, [event_buffer + event.vm]
        vmcall
        test    eax, eax
        jz      next_event
        mov     esi, text_no_continue
main.end:
        call    console_text
        jmp     acpi_power_off

        align 4
event_buffer:           times event_size db 0
state_buffer:           times vm_state_size db 0
resources_buffer:       times resources_size db 0
memory_buffer:          times 64 db 0

text_start:
        db      "service   ", 0
text_no_vmm:
        db      "no VMM beneath: nothing to do", 13, 10, 0
text_no_resources:
        db      "the VMM gives no resources", 13, 10, 0
text_kib:
        db      " KiB, console and BMC; ", 0
text_vms:
        db      " virtual machines", 13, 10, 0
text_no_event:
        db      "service   the VMM gives no event", 13, 10, 0
text_no_guest:
        db      "service   no guest left: power off through ACPI", 13, 10, 0
text_no_continue:
        db      "service   the VMM does not let the guest go on", 13, 10, 0
