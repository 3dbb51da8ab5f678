; Measures a world switch by firmware alone: two worlds on one processor, without VT-x. It runs on every model.
;
; Entry: reset; rom.inc says how it comes to `main`. What it prints on the debug console:
;
;   reading NUMBER COUNTER LABEL    the time-stamp counter's low half, in decimal; LABEL names the interval that the
;                                   reading ends, `start` begins one. `cost` is what a reading itself takes. Then for a
;                                   switch from world A to world B `save PART` and `load PART` for each part, and
;                                   without readings between the parts `total`; `touch first` and `touch again`: loads
;                                   from 16 pages; `back`: the switch from B to A
;   timer LEFT SEEN                 what world A's timer had left when A was left, and shortly after A came back
;   interrupt COUNT STRAYS          A's timer interrupts that were pending when A was left and came when it was back;
;                                   those that came to world B
;   state BEFORE AFTER              hashes of what A can see of itself, before it is left and after it came back
;   end
;
; Memory that it uses:
;
;   01000h - 03FFFh   page directory and tables of world A; 04000h - 06FFFh of world B
;   0F000h            stack of world A, grows down
;   10000h - 1FFFFh   the image; stacks of world B and of the switch
;   20000h, 21000h    the worlds' own pages
;   30000h - 40FFFh   pages that are touched

%include "x86.inc"
%include "vmcs.inc"
%include "ports.inc"

WORLD_A_DIRECTORY   equ 1000h
WORLD_B_DIRECTORY   equ 4000h
WORLD_A_PRIVATE     equ 20000h
WORLD_B_PRIVATE     equ 21000h

%include "rom.inc"
        rom_begin 0, 0, 0, reading_counter, reading_port    ; the last two for the host to find
PARAMETER_PORT      equ parameters      ; 1: readings go to PORT_READING (reading.inc)
PARAMETER_DISTURB   equ parameters + 4  ; address of a byte that world B changes, 0: none
PARAMETER_MASK      equ parameters + 8  ; its bits that it changes

%include "report.inc"
%include "reading.inc"
%include "features.inc"
%include "parts.inc"
%include "touch.inc"
%include "fill.inc"
%include "hash.inc"
%include "observe.inc"
%include "devices.inc"
%include "worlds.inc"

READING_COST    equ 0
READING_BEGIN   equ 2                   ; of the switch with readings between its parts
READING_FIRST   equ 3
%define WORLD_SWITCH world_switch_read
%define WORLD_READINGS
%include "routine.inc"
READING_ARRIVED equ part_number
READING_PLAIN   equ part_number + 8
READING_UNUSED  equ part_number + 16    ; of world B while nothing is measured
%undef WORLD_READINGS
%define WORLD_SWITCH world_switch
%include "routine.inc"

; In:       32-bit protected mode
; Out:      does not return
main:
        call    features_find
        test    dword [features], FEATURE_TSC
        jz      .port
        cmp     dword [PARAMETER_PORT], 0
        je      .counter
.port:
        mov     dword [reading_routine], reading_port
.counter:
        call    worlds_build
        call    world_a_begin
        call    world_b_record
        mov     ebx, world_a
        call    fpu_load                ; the record of B was made with the FPU
        call    check
        call    measure

        mov     ebx, 0
.print:
        mov     esi, [labels + ebx * 4]
        test    esi, esi
        jz      .next
        call    reading_print
.next:
        inc     ebx
        cmp     ebx, LABELS
        jb      .print
        say     "timer"
        mov     eax, [timer_left]
        call    report_number
        mov     eax, [timer_seen]
        call    report_number
        call    report_newline
        say     "interrupt"
        mov     eax, [timer_pending]
        call    report_number
        mov     eax, [timer_b_count]
        call    report_number
        call    report_newline
        say     "state"
        mov     eax, [hash_before]
        call    report_number
        mov     eax, [hash_after]
        call    report_number
        call    report_newline
        jmp     report_end

; Leaves world A with a timer interrupt pending and compares what it can see when it is back.
; Clobbers: all
check:
        in      al, PORT_PIC1_COMMAND
        test    al, 1
        jz      check
        mov     ebx, seen_before
        call    observe
        mov     [hash_before], eax
        mov     eax, 0A1A1A1A1h
        mov     edx, 0A2A2A2A2h
        mov     esi, 0A3A3A3A3h
        mov     edi, 0A4A4A4A4h
        mov     ebp, 0A5A5A5A5h
        mov     ebx, world_a
        mov     ecx, world_b
        stc
        observe_registers registers_before
        call    world_switch
        observe_registers registers_after
        mov     ebx, seen_after
        call    observe
        mov     [hash_after], eax
        movzx   eax, word [world_a + world.counter0 + counter.count]
        mov     [timer_left], eax
        movzx   eax, word [seen_after + world.counter0 + counter.count]
        mov     [timer_seen], eax
        sti                             ; what was pending comes now
        nop
        nop
        cli
        mov     eax, [timer_a_count]
        mov     [timer_pending], eax
        mov     eax, [hash_before]
        mov     ebx, seen_before
        mov     esi, registers_before
        call    observed_hash
        mov     [hash_before], eax
        mov     eax, [hash_after]
        mov     ebx, seen_after
        mov     esi, registers_after
        call    observed_hash
        mov     [hash_after], eax
        ret

; Clobbers: all
measure:
        mov     dword [arrived], READING_ARRIVED
        reading READING_COST
        reading READING_COST + 1
        reading READING_BEGIN
        mov     ebx, world_a
        mov     ecx, world_b
        call    world_switch_read
        mov     dword [arrived], READING_PLAIN + 1
        reading READING_PLAIN
        mov     ebx, world_a
        mov     ecx, world_b
        call    world_switch
        reading READING_PLAIN + 5
        ret

; World B: touches its pages, changes a byte of world A's where it is told to, and goes back.
; Out:      does not return
world_b_main:
        mov     eax, [arrived]
        call    [reading_routine]
        touch_pages
        mov     eax, [arrived]
        inc     eax
        call    [reading_routine]
        touch_pages
        mov     eax, [arrived]
        add     eax, 2
        call    [reading_routine]
        mov     edx, [PARAMETER_DISTURB]
        test    edx, edx
        jz      .undisturbed
        mov     al, [PARAMETER_MASK]
        xor     [edx], al
        mov     dword [PARAMETER_DISTURB], 0
.undisturbed:
        mov     eax, [arrived]
        add     eax, 3
        call    [reading_routine]
        mov     ebx, world_b
        mov     ecx, world_a
        call    world_switch
        jmp     world_b_main

        align 4
; By number of the reading: what it ends.
labels:
        dd      text_start, text_cost, text_start
%assign label_number READING_FIRST
%rep READING_ARRIVED - READING_FIRST
        dd      label_%[label_number]
  %assign label_number label_number + 1
%endrep
        dd      text_registers, 0, 0, 0, 0, 0, 0, 0
        dd      text_start, text_total, text_first, text_again, text_start, text_back
LABELS          equ ($ - labels) / 4

%assign label_number READING_FIRST
%rep READING_ARRIVED - READING_FIRST
label_%[label_number]:
  %xdefine label_text PART_%[label_number]
        db      label_text, 0
  %assign label_number label_number + 1
%endrep
text_start:     db "start", 0
text_cost:      db "cost", 0
text_registers: db "load registers", 0
text_total:     db "total", 0
text_first:     db "touch first", 0
text_again:     db "touch again", 0
text_back:      db "back", 0

        align 16
seen_before:
        times world_size db 0
        align 16
seen_after:
        times world_size db 0
registers_before:
        times 36 db 0
registers_after:
        times 36 db 0
arrived:        dd READING_UNUSED
timer_left:     dd 0
timer_seen:     dd 0
timer_pending:  dd 0
hash_before:    dd 0
hash_after:     dd 0
        times 256 db 0
switch_stack:
        align 16
        rom_end
