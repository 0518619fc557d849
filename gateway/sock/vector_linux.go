package sock

import (
	"syscall"
	"unsafe"
)

// Vector writes several pieces of memory as one, without copying them together: what goes before a body, the body, what goes after.
// The zero Vector is ready; it is used again for any connection, by one goroutine at a time.
type Vector struct {
	pieces [3]syscall.Iovec
	wrote  int
	err    error
	step   func(fd uintptr) bool
}

// WriteVector writes the pieces one after another, all of them unless there is an error, and returns how many bytes were written.
func (c *Conn) WriteVector(v *Vector, pieces [3][]byte) (int, error) {
	if v.step == nil {
		v.step = v.stepOnce
	}
	for i, p := range pieces {
		v.pieces[i].Base = unsafe.SliceData(p)
		v.pieces[i].SetLen(len(p))
	}
	v.wrote, v.err = 0, nil
	err := c.raw.Write(v.step)
	if err == nil {
		err = v.err
	}
	v.pieces, v.err = [3]syscall.Iovec{}, nil
	return v.wrote, err
}

// stepOnce writes what the socket takes; false means that it is full.
func (v *Vector) stepOnce(fd uintptr) bool {
	for {
		first := 0
		for first < len(v.pieces) && v.pieces[first].Len == 0 {
			first++
		}
		if first == len(v.pieces) {
			return true
		}
		rest := v.pieces[first:]
		n, _, errno := syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)))
		switch errno {
		case 0:
			v.advance(int(n))
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			v.err = errno
			return true
		}
	}
}

// advance takes n bytes, which were written, off the front.
func (v *Vector) advance(n int) {
	v.wrote += n
	for i := range v.pieces {
		piece := &v.pieces[i]
		take := min(n, int(piece.Len))
		if take < int(piece.Len) {
			piece.Base = (*byte)(unsafe.Add(unsafe.Pointer(piece.Base), take))
		}
		piece.SetLen(int(piece.Len) - take)
		n -= take
	}
}
