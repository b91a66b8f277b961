package pause

const machine = 62

var code = []byte{
	0xbf, 38, 0, 0, 0, // mov edi, PR_SET_NO_NEW_PRIVS
	0xbe, 1, 0, 0, 0, // mov esi, 1
	0x31, 0xd2, // xor edx, edx
	0x45, 0x31, 0xd2, // xor r10d, r10d
	0x45, 0x31, 0xc0, // xor r8d, r8d
	0xb8, 157, 0, 0, 0, // mov eax, prctl
	0x0f, 0x05, // syscall
	0xbf, 17, 0, 0, 0, // mov edi, SIGCHLD
	0x48, 0x8d, 0x35, 24, 0, 0, 0, // lea rsi, [rip+action]
	0x31, 0xd2, // xor edx, edx
	0x41, 0xba, 8, 0, 0, 0, // mov r10d, 8
	0xb8, 13, 0, 0, 0, // mov eax, rt_sigaction
	0x0f, 0x05, // syscall
	0xb8, 34, 0, 0, 0, // loop: mov eax, pause
	0x0f, 0x05, // syscall
	0xeb, 0xf7, // jmp loop
	// action: SIG_IGN, SA_NOCLDWAIT: the kernel reaps at once what ends
	1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
}
