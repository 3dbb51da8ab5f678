%xdefine PART_3 "abc"
%assign n 3
 db PART_%[n]
%define foo(x) x+1
 db %[n]%[n]
%define ab 7
%define q b
 db a%[q]
