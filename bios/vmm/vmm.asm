; The VMM: runs virtual machines, each with its own memory and devices, and hands what happens to them to the Service VM.
;
; Entry: at its first byte, at the physical address that it was loaded to, in 32-bit protected mode, flat, without paging,
; interrupts off, EBX = handoff block (handoff.inc). POST has loaded it to the top 4 MiB of RAM; it maps itself to VMM_BASE.
; layout.inc has its memory map. It wants VT-x; what it does without EPT or unrestricted guests, shadow.inc and paged.inc say.
; software.asm is the same VMM without VT-x: where SOFTWARE is defined, software/ is in the place of vtx.inc and vmxon.inc.
;
; Order of things: start.inc (paging, tables, VMX operation) - decision.inc (Service OS or native boot) - create.inc (the VMs) - run.inc (schedule, enter, exit, switch)
; - exits.inc and io.inc (what is done about an exit) - events.inc (policy, what wakes the Service VM) - calls.inc (VMCALL).

        bits 32

%include "x86.inc"
%include "vmcs.inc"
%include "vmx.inc"
%include "ports.inc"
%include "post_codes.inc"
%include "flash.inc"
%include "handoff.inc"
%include "vm_abi.inc"
%include "vm_devices.inc"
%include "runtime.inc"
%include "layout.inc"
%ifdef SOFTWARE
  %include "software/vtx.inc"
%else
  %include "vtx.inc"
%endif
%include "guests.inc"

        org VMM_BASE

%include "start.inc"
%define CONSOLE_SCREEN
%include "console.inc"
%include "screen_text.inc"
%include "crc32.inc"
%include "files.inc"
%include "ata.inc"
%include "policy.inc"
%include "hpa.inc"
%include "fat.inc"
%include "header.inc"
%include "tables.inc"
%ifdef SOFTWARE
  %include "software/init.inc"
  %include "software/leave.inc"
  %include "software/enter.inc"
  %include "software/segments.inc"
  %include "software/memory.inc"
  %include "software/deliver.inc"
  %include "software/decode.inc"
  %include "software/instruction.inc"
  %include "software/transfer.inc"
%else
  %include "vmxon.inc"
%endif
%include "memory.inc"
%include "ept.inc"
%include "shadow.inc"
%include "paged.inc"
%include "load.inc"
%include "create.inc"
%include "run.inc"
%include "schedule.inc"
%include "interrupt.inc"
%include "step.inc"
%include "timer.inc"
%include "exits.inc"
%include "io.inc"
%include "devices/vpic.inc"
%include "devices/vpit.inc"
%include "devices/vports.inc"
%include "devices/vuart.inc"
%include "devices/vuart_state.inc"
%include "devices/vi8042.inc"
%include "devices/vkeyboard.inc"
%include "devices/vvga.inc"
%include "devices/vpci.inc"
%include "calendar.inc"
%include "devices/vrtc.inc"
%include "devices/vpm.inc"
%include "devices/vdevices.inc"
%include "devices/vata.inc"
%include "devices/vata_commands.inc"
%include "devices/vata_answers.inc"
%include "disk.inc"
%include "access.inc"
%include "iostring.inc"
%include "hotkey.inc"
%include "remote.inc"
%include "input.inc"
%include "front.inc"
%include "protect.inc"
%include "traps.inc"
%include "poll.inc"
%include "poll_sample.inc"
%include "events.inc"
%include "restart.inc"
%include "calls.inc"
%include "inspect.inc"
%include "messages.inc"
%include "variable_store.inc"
%include "runtime_place.inc"
%include "runtime_calls.inc"
%include "policy_calls.inc"
%include "line_words.inc"
%include "policy_values.inc"
%include "policy_text.inc"
%include "keyboard.inc"
%include "typed.inc"
%include "decision.inc"
%include "setup.inc"
%include "unload.inc"

; --- variables ---------------------------------------------------------------------------------------------------------
        align 8
current:            dd 0                ; VM that was entered last; 0 before the first
vms:                dd 0                ; how many there are
vmm_physical:       dd 0                ; where VMM_BASE is
handoff_block:      dd 0
vmcs_revision:      dd 0
vmm_lacks:          dd 0                ; LACKS_...
controls_msrs:      dd 0                ; first of the four capability MSRs of the controls
primary_controls:   dd 0                ; primary processor-based controls of every VM
trap_flag:          dd 0                ; the control bit of the monitor trap flag, 0 where there is none
memory_low:         dd 0                ; RAM that no VM has: from here
memory_high:        dd 0                ; up to here
pages_next:         dd 0                ; next free page of the VMM's own
exit_reason:        dd 0
exit_qualification: dd 0
exit_address:       dd 0                ; guest-physical, of a violation
exit_linear:        dd 0
host_timer_armed:   dd 0
host_ier:           dd 0                ; the interrupts of the real COM1 and COM2 that are enabled, a byte each
host_room:          dw 0                ; bytes that the FIFOs of the real COM2 and COM1 still take, at least, a byte each
                    dw 0
slice_over:         dd 0                ; the guest that runs has had its time
slice_vm:           dd VMM_VMS          ; the guest whose slice it is; before the first the Service VM
slice_end:          dd 0, 0             ; when it is over
frozen:             dd 0                ; the guests' time stands still
frozen_since:       dd 0, 0             ; since then
switch_reason:      dd 0                ; of the next switch
switch_rip:         dd 0
event_buffer:       dd 0                ; where the Service VM wants the next event
policy_now:         times policy_size db 0  ; the policy in force
setup_policy:       times policy_size db 0  ; as the set-up screen shows it
setup_line:         times SETUP_LINE + 1 db 0
                    align 4
var_cursor:         dd 0                ; next cell of the display; 0: nothing is written there
                    align 4
io_time:            dd 0, 0             ; the VM's time of the access
io_mask:            dd 0                ; of the address size of INS and OUTS
io_bytes:           dd 0
io_elements:        dd 0                ; of INS and OUTS that are moved at once
io_port:            dd 0

        times -($ - $$ > VMM_IMAGE_LIMIT) db 0       ; a negative count where the image is too long
