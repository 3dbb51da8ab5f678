; A boot sector as they are usually written.
        bits 16
        org 0x7c00
%define PORT 0x3f8
%define sum(a, b) ((a) + (b))
start:
        jmp short .code
        nop
        times 8 db 0
.code:  cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        sti
        cld
        mov [drive], dl
        mov si, message
.next:  lodsb
        test al, al
        jz .loaded
        mov ah, 0x0e
        mov bx, 7
        int 10h
        jmp .next
.loaded:
        mov ah, 42h
        mov dl, [drive]
        mov si, packet
        int 0x13
        jc near .error
        mov dx, PORT
        mov cx, sum(3, 4)
        rep outsb
        lgdt [gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:protected
.error: mov si, failed
        call print
.halt:  hlt
        jmp .halt
print:  push ax
        push si
.1:     lodsb
        or al, al
        jz short .2
        mov ah, 0eh
        int 16
        jmp short .1
.2:     pop si
        pop ax
        ret
        bits 32
protected:
        mov ax, 10h
        mov ds, eax
        mov esp, 0x9fc00
        mov edi, 0xb8000
        mov ecx, 80*25
        mov eax, ' ' | 7 << 8
        rep stosw
        call dword near [entry]
        jmp $
        align 4
gdt:    dq 0
        dw 0xffff, 0
        db 0, 10011010b, 11001111b, 0
        dw -1, 0, 9200h, 0cfh
gdtr:   dw $ - gdt - 1
        dd gdt
entry:  dd protected
message: db 'Loading', 13, 10, 0
failed: db "Disk error: ", `\r\n\0`
packet: db 16, 0
        dw 1
        dw 0, 0x7e0
        dq 1
drive:  db 0
        times 510 - ($ - $$) db 0
        dw 0xaa55
