; The upper 64 KiB of a benchmark's ROM: takes any PC from reset to a kernel in 32-bit protected mode, and reports.
;
; The lower 64 KiB hold the kernel, which is copied to RAM, since some emulators run code in ROM another way.
; Entry:  reset, CS:IP = F000:FFF0, base FFFF0000h.
; Memory: 00000h IDT   01000h page directory   02000h page table of the first 4 MiB   08000h top of the stack
;         10000h kernel   20000h..7FFFFh the kernel's data
; Output: the kernel's result as eight digits between two '#' to port E9h; then port F4h and port 8900h, of which each
;         emulator knows one, end the run.

RESULT_PORT equ 0xe9
EXIT_PORT equ 0xf4
SHUTDOWN_PORT equ 0x8900
PAGE_DIRECTORY equ 0x1000
PAGE_TABLE equ 0x2000
STACK equ 0x8000
KERNEL equ 0x10000
PRESENT_WRITABLE equ 3
PAGES equ 1024
CR0_PE equ 1
CR0_PG equ 1 << 31
CODE equ 8
DATA equ 16

bits 16
org 0
start:
    cli
    lgdt [cs:gdt_register]
    mov eax, cr0
    or al, CR0_PE
    mov cr0, eax
    jmp dword CODE:protected + 0xf0000

bits 32
protected:
    mov ax, DATA
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov esp, STACK
    cld
    mov esi, 0xfffe0000
    mov edi, KERNEL
    mov ecx, 0x10000 / 4
    rep movsd
    cmp dword [0xf0000 + paging], 0
    je .run

    mov edi, PAGE_DIRECTORY
    mov ecx, PAGES
    xor eax, eax
    rep stosd
    mov dword [PAGE_DIRECTORY], PAGE_TABLE | PRESENT_WRITABLE
    mov edi, PAGE_TABLE
    mov eax, PRESENT_WRITABLE
    mov ecx, PAGES
.page:
    stosd
    add eax, 4096
    loop .page
    mov eax, PAGE_DIRECTORY
    mov cr3, eax
    mov eax, cr0
    or eax, CR0_PG
    mov cr0, eax
    jmp .run

.run:
    mov ecx, [0xf0000 + turns]
    mov eax, KERNEL
    call eax

    mov ebx, eax
    mov al, '#'
    out RESULT_PORT, al
    mov ecx, 8
.digit:
    rol ebx, 4
    mov al, bl
    and al, 15
    add al, '0'
    cmp al, '9'
    jbe .put
    add al, 'A' - '9' - 1
.put:
    out RESULT_PORT, al
    loop .digit
    mov al, '#'
    out RESULT_PORT, al
    xor eax, eax
    out EXIT_PORT, al
    mov dx, SHUTDOWN_PORT
    mov esi, 0xf0000 + shutdown
    mov ecx, 8
    rep outsb
    hlt

shutdown: db "Shutdown"

align 8
gdt:
    dq 0
    dq 0x00cf9b000000ffff ; CODE
    dq 0x00cf93000000ffff ; DATA
gdt_register:
    dw $ - gdt - 1
    dd 0xf0000 + gdt

    times 0xffe0 - ($ - $$) db 0xff
turns: dd 1     ; these two are set when an image is made
paging: dd 0
    times 0xfff0 - ($ - $$) db 0xff
bits 16
reset:
    jmp 0xf000:start
    times 0x10000 - ($ - $$) db 0xff
