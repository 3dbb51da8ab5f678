; The Service OS: runs before any guest, then waits for events. It says what a guest did, looks into the guest, notes it in
; the BMC's event log, and does with the guest what the policy says; or the user does, in its shell.
;
; Entry: flash.inc says in which state. It runs only under the VMM.
;
; Memory that it uses:
;
;   0E000h - 0EFFFh   stack
;   10000h - 7FFFFh   the image
;   100000h - ...     the memory manager's (heap.inc), up to the VM's ACPI tables
;
; Order of things: here (start, the wait for events) - event.inc (what is done about one) - shell.inc, commands.inc (what the
; user may do) - the tools, one a file.

%include "x86.inc"
%include "vmcs.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "vm_devices.inc"
%include "image.inc"
%define CONSOLE_CAPTURE
%include "console.inc"
%include "crc32.inc"
%include "guests.inc"
%include "policy.inc"
%include "ata.inc"
%include "hpa.inc"
%include "fat.inc"
%include "acpi_off.inc"
%include "interrupts.inc"
%include "clock.inc"
%include "input.inc"
%include "line.inc"
%include "line_words.inc"
%include "words.inc"
%include "heap.inc"
%include "shell.inc"
%include "commands.inc"
%include "machines.inc"
%include "walk.inc"
%include "registers.inc"
%include "fields.inc"
%include "disasm.inc"
%include "operand.inc"
%include "operand_memory.inc"
%include "dis.inc"
%include "memory.inc"
%include "stack.inc"
%include "core.inc"
%include "elf.inc"
%include "dump.inc"
%include "capture.inc"
%include "modem.inc"
%include "ymodem.inc"
%include "transfer.inc"
%include "files.inc"
%include "fatwrite.inc"
%include "fatdir.inc"
%include "filewrite.inc"
%include "chipset.inc"
%include "acpi.inc"
%include "policy_values.inc"
%include "policy_text.inc"
%include "policy_command.inc"
%include "messages.inc"
%include "kcs.inc"
%include "bmc.inc"
%include "date.inc"
%include "sel.inc"
%include "sensors.inc"
%include "report.inc"
%include "event.inc"

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
        call    heap_init
        mov     eax, 4096
        mov     edx, "page"
        call    heap_take
        mov     [page_buffer], eax
        mov     eax, WALK_LEVELS * 4096
        mov     edx, "walk"
        call    heap_take
        mov     [walk_pages], eax
        call    interrupts_init
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
        call    policy_take
        test    byte [policy_now + policy.flags], POLICY_SHELL
        jz      next_event
        call    shell

; Events, one after the other.
next_event:
        mov     eax, VMCALL_NEXT_EVENT
        mov     edi, event_buffer
        vmcall
        test    eax, eax
        mov     esi, text_no_event
        jnz     main.end
        cmp     dword [event_buffer + event.kind], EVENT_NO_GUEST
        mov     esi, text_none_left
        je      main.end
        call    event_handle
        jmp     next_event
main.end:
        call    console_text
        jmp     acpi_power_off

; The policy that is in force; the built-in one where the VMM gives none.
; Out:      [policy_now]
; Clobbers: EAX, ECX, ESI, EDI
policy_take:
        mov     eax, VMCALL_POLICY_GET
        mov     edi, policy_now
        vmcall
        test    eax, eax
        jz      .end
        mov     esi, policy_default
        mov     edi, policy_now
        mov     ecx, policy_size
        rep movsb
.end:   ret

        align 4
event_buffer:           times event_size db 0
state_buffer:           times vm_state_size db 0
resources_buffer:       times resources_size db 0
memory_buffer:          times 64 db 0
page_buffer:            dd 0            ; 4 KiB for whoever works
policy_now:             times policy_size db 0

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
        db      "no guest is left to run", 0
text_none_left:
        db      "service   no guest left: power off through ACPI", 13, 10, 0
