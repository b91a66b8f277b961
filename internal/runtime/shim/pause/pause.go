// Package pause makes the program that holds a Pod's namespaces: a static ELF file of a few hundred bytes, put together here
// from machine code, so that building Carob needs no C compiler.
//
// The program sets no_new_privs, then waits for ever; as PID 1 of a PID namespace it reaps what it is given. It needs no root
// file system, no libc, no stack to speak of. Signals have their default effect. The package imports nothing of the project.
package pause

import "encoding/binary"

const base = 0x400000

// ELF returns the program for the architecture that this binary was built for.
func ELF() []byte {
	const ehsize, phsize = 64, 56
	head := make([]byte, ehsize+phsize, ehsize+phsize+len(code))
	le := binary.LittleEndian
	copy(head, "\x7fELF\x02\x01\x01")
	le.PutUint16(head[16:], 2) // executable
	le.PutUint16(head[18:], machine)
	le.PutUint32(head[20:], 1)
	le.PutUint64(head[24:], base+ehsize+phsize) // entry
	le.PutUint64(head[32:], ehsize)             // program headers
	le.PutUint16(head[52:], ehsize)
	le.PutUint16(head[54:], phsize)
	le.PutUint16(head[56:], 1)
	ph := head[ehsize:]
	le.PutUint32(ph[0:], 1) // load
	le.PutUint32(ph[4:], 5) // read, execute
	le.PutUint64(ph[16:], base)
	le.PutUint64(ph[24:], base)
	size := uint64(ehsize + phsize + len(code))
	le.PutUint64(ph[32:], size)
	le.PutUint64(ph[40:], size)
	le.PutUint64(ph[48:], 0x10000)
	return append(head, code...)
}
