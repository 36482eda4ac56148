package confine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// machineActs are the other ways into the kernel that this machine has.
var machineActs = []act{
	{name: "a 32-bit call", want: "SIGSYS", prepare: makeGate, do: func() error {
		gate()
		return nil
	}},
	{name: "an x32 call", want: "SIGSYS", do: func() error {
		err := call(unix.SYS_GETPID | 0x40000000)()
		if err == unix.ENOSYS { // most kernels have none, but ask the filter first
			return nil
		}
		return err
	}},
}

// gate calls getpid(2) as 32-bit programs do. It is in no register that matters to Go but AX, which is the caller's to save.
var gate func()

func makeGate() {
	code, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err)
	}
	copy(code, "\xb8\x14\x00\x00\x00\xcd\x80\xc3") // mov eax, 20; int 0x80; ret
	if err := unix.Mprotect(code, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		panic(err)
	}
	entry := &code[0] // a func value points to a pointer to code
	*(*unsafe.Pointer)(unsafe.Pointer(&gate)) = unsafe.Pointer(&entry)
}
