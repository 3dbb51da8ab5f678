; The VMM for processors without VT-x: the same VMs, devices and events, with software/ in place of VMX operation.
;
; Order of things: vtx.inc (the VMCS) - init.inc (tables) - enter.inc, segments.inc (to a VM) - leave.inc (from it, and what
; becomes of that) - instruction.inc, decode.inc, transfer.inc (what ring 3 may not execute) - deliver.inc, memory.inc (events).

%define SOFTWARE
%include "vmm.asm"
