; Every operator, its precedence and its signedness.
        dq 1 + 2 * 3, (1 + 2) * 3, 10 - 4 - 3, 2 - -3, 100 / 7, 100 % 7
        dq -100 / 7, -100 // 7, -100 %% 7, -100 % 7, 100 // -7, 100 %% -7
        dq 1 << 4, 256 >> 4, -256 >> 4, -256 >>> 4, 3 <<< 2, 1 << 63
        dq 0xf0 & 0x3c, 0xf0 | 0x0f, 0xff ^ 0x0f, ~0, ~0x55, !0, !5, - - 5, -~4
        dq 1 < 2, 2 < 1, 1 <= 1, 2 >= 3, 1 = 1, 1 == 2, 1 != 2, 1 <> 1, 5 <=> 3, 4 <=> 4
        dq 1 && 0, 1 && 2, 0 || 0, 3 || 0, 1 ^^ 1, 1 ^^ 0, 0 ^^ 0
        dq 1 | 2 ^ 3 & 4 << 1 + 2 * 3, (1 | 2) ^ 3, 1 + 2 << 3, 1 << 2 + 3, 6 & 3 == 2, 1 < 2 == 1
        dq 1 ? 10 : 20, 0 ? 10 : 20, 1 ? 0 ? 1 : 2 : 3, 5 > 3 ? 5 : 3
        dq 10, 0x1F, 1Fh, 0h1F, $1F, $0ff, 0b1011, 1011b, 1011y, 0y11, 0o17, 17q, 17o, 0q17, 0d19, 19d, 0t19, 19t
        dq 0x_dead_beef, 1_000_000, 1010_1010b, 0ffh, 0bh, 0d1h, 0x10
        dq 'a', 'ab', 'abcd', "abcdefgh", 'a' + 1, 'A' | 0x20, `\n`, `\x41`, `\101`, "'"
        dq 0xffffffffffffffff, 0x8000000000000000, 18446744073709551615, -9223372036854775808
        dd 'a', 'ab', 'abcd', 'a' - 'A', 0xffffffff, -1
        dw 'a', 'ab', 'abc', -1, 65535
        db 'a', 'abc', -128, 255, 'x' + 1, 5, "it's", 'say "hi"', `tab\tnl\nnul\0hex\x7fend\`\\\'\"`
        db `\u263a`, `\U0001F600`, `\e\a\b\f\v`, ""
        db 1, 2, 3,
here:   dq $ - $$, here - start, $ - here, (here - start) * 2, -(here - start), (here - start) / 3
        dw here, here + 1, 1 + here, here - 1, here + 2 * 3, start - here + here
        dq here == here, here > start, here < start, here != start
start:
count   equ 5
size    equ end - start
double  equ size * 2
alias   equ start + 1
        db count, size, double, count * size - 1
        dw alias, alias - start
        times count db count
        times count + 3 db 0x11
end:
        resb 3
        resw 2
        resd count - 4
        resq 1
        dd 1.5, -2.25, 3.141592653589793, 1e10, 1.0e-5
        dq 1.5, -2.25, 3.141592653589793, 1e300
        dt 1.5, -2.25, 3.141592653589793, 1.0e-4000, 0.1
        db 3 dup (1, 2), 2 dup ('ab')
        dw 2 dup (0x1234, 2 dup (5))
