; Measures VM exits and VM entries, and a switch from a guest to the Service VM, by exit reason. Runs wherever there is
; VT-x; EPT and VPID are used where they are.
;
; Entry: reset; rom.inc says how it comes to `main`. What it prints on the debug console:
;
;   reading NUMBER COUNTER LABEL
;                         as software.asm says. Labels begin with the exit reason and what was measured:
;
;       REASON round      `exit` to the first instruction of the VMM, `registers` (PUSHAD), `VMREADs`, `handler`,
;                         `VMWRITEs`, `entry` (with POPAD) to the guest's next instruction. Of EXTERNAL_INTERRUPT
;                         `exit` begins with an entry, since the interrupt is pending before it
;       REASON plain      `total` of the same without readings in between
;       REASON switch     the same to the Service VM, with the parts that are saved and loaded for it, `VMPTRLD`,
;                         `entry`; `touch first` and `touch again`: loads from 16 pages there
;       REASON unread     `total` of the same without readings in between
;
;       VMCALL shared     `touch first` and `touch again` as before, but both VMs without VPID
;   skip REASON           the processor cannot have it
;   state BEFORE AFTER    hashes of what the guest can see, before the switch to the Service VM and after the way back
;   accesses READS WRITES VMREADs and VMWRITEs of an exit
;   rounds N              PARAMETER_ROUNDS were run
;   end
;
; Memory that it uses:
;
;   01000h - 03FFFh   page directory and tables of the host; 04000h - 06FFFh of the guest; 07000h - 09FFFh of the
;                     Service VM; 0A000h - 0DFFFh EPT
;   0F000h            stack of the host, grows down
;   10000h - 1FFFFh   the image, with the stacks of the VMs
;   20000h - 22FFFh   VMXON region, VMCSs
;   30000h - 40FFFh   pages that are touched
;   50000h            a page that the guest looks for

%include "x86.inc"
%include "vmcs.inc"
%include "vmx.inc"
%include "ports.inc"

HOST_DIRECTORY      equ 1000h
GUEST_DIRECTORY     equ 4000h
SERVICE_DIRECTORY   equ 7000h
EPT_PML4            equ 0A000h
EPT_PDPT            equ 0B000h
EPT_DIRECTORY       equ 0C000h
EPT_TABLE           equ 0D000h
VMXON_REGION        equ 20000h
VMCS_GUEST          equ 21000h
VMCS_SERVICE        equ 22000h
HOLE_LINEAR         equ 80000000h
HOLE_PHYSICAL       equ 50000h
EPT_HOLE            equ EPT_TABLE + (HOLE_PHYSICAL >> 12) * 8
GUEST_HOLE          equ GUEST_DIRECTORY + 2000h         ; the entry of HOLE_LINEAR in its table
WARM_UP             equ 3               ; times that a case is run before it counts
READS               equ 4
WRITES              equ 1

%include "rom.inc"
        rom_begin 0, 0, 0, reading_counter, reading_port    ; the last two for the host to find
PARAMETER_ROUNDS    equ parameters      ; so many round trips of a CPUID exit, and nothing else
PARAMETER_DISTURB   equ parameters + 4  ; address of a byte that the Service VM changes during the check, 0: none
PARAMETER_MASK      equ parameters + 8  ; its bits that it changes

%include "report.inc"
%include "reading.inc"
%include "features.inc"
%include "parts.inc"
%include "devices.inc"
%include "touch.inc"
%include "fill.inc"
%include "hash.inc"

struc vm
.stack          resb 256                ; of the VMM for this VM
.registers:
.edi            resd 1                  ; as PUSHAD leaves them
.esi            resd 1
.ebp            resd 1
.esp            resd 1
.ebx            resd 1
.edx            resd 1
.ecx            resd 1
.eax            resd 1
.stack_end:
.vmcs           resq 1
.directory      resd 1
.vpid           resd 1
.guest_stack    resd 1
.launched       resd 1
                alignb 16
.world          resb world_size
endstruc

READING_COST    equ 0
READING_ENTER   equ 2                   ; the host enters the guest
READING_START   equ 3                   ; the guest is about to exit
READING_EXIT    equ 4                   ; and the parts that follow
READING_BACK    equ 40                  ; the guest goes on
READING_ARRIVED equ 41                  ; the Service VM goes on
READING_FIRST   equ 42
READING_AGAIN   equ 43

%include "vmcs_build.inc"
%include "cases.inc"
%define VM_EXIT vm_exit_read
%define VM_READINGS
%include "exit.inc"
PARTS           equ part_number - READING_EXIT
ROUND_PARTS     equ 5
%undef VM_READINGS
%define VM_EXIT vm_exit
%include "exit.inc"
%include "rounds.inc"
%include "check.inc"

; In:       32-bit protected mode
; Out:      does not return
main:
        call    features_find
        test    dword [features], FEATURE_VMX
        jnz     .vmx
        say     {"no VT-x", 10}
        jmp     report_end
.vmx:
        sub     dword [msr_count], 3    ; the VMCS has the MSRs of SYSENTER, which are the first three
        mov     esi, msrs + 12
        mov     edi, msrs
        mov     ecx, MSRS - 3
        rep movsd
        mov     edi, GUEST_DIRECTORY
        call    pages_build
        mov     edi, SERVICE_DIRECTORY
        call    pages_build
        call    vmx_begin
        call    vms_build
        cmp     dword [PARAMETER_ROUNDS], 0
        jne     rounds_run

        call    check
        call    readings_clear
        reading READING_COST
        reading READING_COST + 1
        mov     edi, labels_cost
        call    labels_print
        mov     ebx, cases
.case:
        mov     eax, [ebx + case.needs]
        mov     ecx, [secondary]
        and     ecx, eax
        cmp     ecx, eax
        jne     .skip
        mov     dword [vm_wanted], vm_guest
        mov     edi, labels_round
        mov     esi, labels_plain
        call    case_measure
        mov     dword [vm_wanted], vm_service
        mov     edi, labels_switch
        mov     esi, labels_unread
        call    case_measure
        jmp     .next
.skip:
        say     "skip "
        mov     esi, [ebx + case.name]
        call    report_text
        call    report_newline
.next:
        add     ebx, case_size
        cmp     dword [ebx + case.name], 0
        jne     .case
        call    shared_measure
        say     "accesses"
        mov     eax, READS
        call    report_number
        mov     eax, WRITES
        call    report_number
        call    report_newline
        jmp     report_end

; Measures the loads once more with the translations of both VMs under one tag, where the processor has VPID.
; Clobbers: all
shared_measure:
        test    dword [secondary], PROC2_ENABLE_VPID
        jz      .end
        and     dword [secondary], ~PROC2_ENABLE_VPID
        mov     ebx, vm_service
        call    .control
        mov     ebx, vm_guest
        call    .control
        mov     ebx, cases.call
        mov     edi, labels_shared
        mov     eax, vm_exit_read
        jmp     case_repeat
.control:
        vmptrld [ebx + vm.vmcs]
        put     SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, [secondary]
.end:   ret

; Measures a case with and without readings between the parts.
; In:       EBX = case, EDI = labels with them, ESI = without
; Clobbers: all but EBX
case_measure:
        push    esi
        mov     eax, vm_exit_read
        call    case_repeat
        pop     edi
        mov     eax, vm_exit

; In:       EBX = case, EDI = labels, EAX = what the guest's exits go to
; Clobbers: all but EBX
case_repeat:
        push    edi
        push    eax
        vmptrld [vm_guest + vm.vmcs]
        pop     eax
        put     HOST_RIP, eax
        mov     ecx, WARM_UP + 1
.again:
        push    ecx
        push    ebx
        call    case_run
        pop     ebx
        pop     ecx
        loop    .again
        pop     edi

; Prints readings.
; In:       EDI = labels: numbers of readings and texts, -1 ends them; EBX = case
; Clobbers: EAX, ECX, EDX, ESI, EDI
labels_print:
        mov     ecx, [edi]
        cmp     ecx, -1
        je      .end
        cmp     ecx, READING_START
        jne     .number
        cmp     dword [ebx + case.code], guest_interrupt
        jne     .number
        mov     ecx, READING_ENTER
.number:
        push    ebx
        say     "reading"
        push    ecx
        mov     eax, ecx
        call    report_number
        pop     ecx
        mov     eax, [readings + ecx * 4]
        call    report_number
        pop     ebx
        mov     al, " "
        out     PORT_DEBUG_CONSOLE, al
        mov     esi, [edi + 4]
        cmp     esi, text_start
        je      .text
        cmp     esi, text_cost
        je      .text
        mov     esi, [ebx + case.name]
        call    report_text
        mov     esi, [edi + 4]
.text:
        call    report_text
        call    report_newline
        add     edi, 8
        jmp     labels_print
.end:   ret

; Both VMs and their devices; the guest's are the real ones' state.
; Clobbers: all
vms_build:
        mov     ebx, vm_service
        call    vmcs_build
        put_value HOST_RIP, vm_exit
        put_value GUEST_RIP, service
        put     GUEST_RSP, [ebx + vm.guest_stack]
        lea     ebx, [ebx + vm.world]
        call    devices_b
        call    state_now
        mov     ebx, vm_guest
        call    vmcs_build
        lea     ebx, [ebx + vm.world]
        call    devices_a
        mov     word [ebx + world.imr], -1
        call    state_now
        call    disk_enable
        call    chipset_load
        call    disk_load
        call    pit_load
        jmp     pic_load

; The processor's part of a record as it is.
; In:       EBX = record
; Clobbers: EAX, ECX, EDX, EDI
state_now:
        call    debug_save
        call    msrs_save
        fninit
        call    fpu_save
        jmp     fpu_load

        align 4
labels_cost:
        dd      READING_COST, text_start, READING_COST + 1, text_cost, -1
labels_round:
        dd      READING_START, text_start
%assign label_number 0
%rep ROUND_PARTS
        dd      READING_EXIT + label_number, round_%[label_number]
  %assign label_number label_number + 1
%endrep
        dd      READING_BACK, text_entry, -1
labels_plain:
        dd      READING_START, text_start, READING_BACK, text_plain, -1
labels_switch:
        dd      READING_START, text_start
%assign label_number 0
%rep PARTS
        dd      READING_EXIT + label_number, switch_%[label_number]
  %assign label_number label_number + 1
%endrep
        dd      READING_ARRIVED, text_arrived, READING_FIRST, text_first, READING_AGAIN, text_again, -1
labels_shared:
        dd      READING_ARRIVED, text_start, READING_FIRST, text_shared_first, READING_AGAIN, text_shared_again, -1
labels_unread:
        dd      READING_START, text_start, READING_ARRIVED, text_unread, -1

%assign label_number 0
%rep PARTS
  %assign part_number READING_EXIT + label_number
  %xdefine label_text PART_%[part_number]
  %if label_number < ROUND_PARTS
round_%[label_number]:
        db      " round ", label_text, 0
  %endif
switch_%[label_number]:
        db      " switch ", label_text, 0
  %assign label_number label_number + 1
%endrep
text_start:     db "start", 0
text_cost:      db "cost", 0
text_entry:     db " round entry", 0
text_plain:     db " plain total", 0
text_arrived:   db " switch entry", 0
text_first:     db " switch touch first", 0
text_again:     db " switch touch again", 0
text_unread:    db " unread total", 0
text_shared_first: db " shared touch first", 0
text_shared_again: db " shared touch again", 0

        align 16
vm_guest:
        istruc vm
          at .vmcs,         dq VMCS_GUEST
          at .directory,    dd GUEST_DIRECTORY
          at .vpid,         dd 1
          at .guest_stack,  dd stack_guest
        iend
        align 16
vm_service:
        istruc vm
          at .vmcs,         dq VMCS_SERVICE
          at .directory,    dd SERVICE_DIRECTORY
          at .vpid,         dd 2
          at .guest_stack,  dd stack_service
        iend
        times 256 db 0
stack_guest:
        times 256 db 0
stack_service:
        align 16
        rom_end
