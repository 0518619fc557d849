package sock

import (
	"io"
	"runtime"
	"sync"
	"syscall"
)

// Bytes that nobody looks at need not pass through the gateway's memory: splice(2) moves them from one socket to another within the kernel,
// by way of a pipe. That costs two system calls for each piece, as a read and a write do, and saves copying it twice. For small pieces
// there is nothing to save, and a pipe has two descriptors, so a way between two connections begins with memory and takes a pipe for as
// long as much comes at once:
//
//	little at a time   read into memory, write
//	a piece is full    splice into a pipe, splice out of it; until little comes
//
// Neither memory nor pipe is held while there is nothing to read.
const (
	carryPiece = 32 << 10
	// pipeSize is how much a pipe is asked to hold. Beyond a number of large pipes, which is the user's, the kernel gives smaller ones, down
	// to two pages; one that holds less than pipeLeast saves nothing.
	pipeSize  = 1 << 20
	pipeLeast = 64 << 10

	spliceMove     = 1    // SPLICE_F_MOVE
	spliceNonblock = 2    // SPLICE_F_NONBLOCK
	setPipeSize    = 1031 // F_SETPIPE_SZ
	getPipeSize    = 1032 // F_GETPIPE_SZ
)

var carryPieces = sync.Pool{New: func() any { return new([carryPiece]byte) }}

// pipe is a pipe with nothing in it, or with what is on its way.
type pipe struct {
	in, out int
	holds   int
}

// pipes lends pipes; one that the pool drops is closed.
var pipes = sync.Pool{New: func() any { return openPipe() }}

// openPipe returns nil when there are no descriptors left, or only small pipes.
func openPipe() *pipe {
	var ends [2]int
	if syscall.Pipe2(ends[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK) != nil {
		return nil
	}
	p := &pipe{in: ends[1], out: ends[0]}
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(p.in), setPipeSize, pipeSize)
	if size, _, _ := syscall.Syscall(syscall.SYS_FCNTL, uintptr(p.in), getPipeSize, 0); int(size) < pipeLeast {
		p.close()
		return nil
	}
	runtime.SetFinalizer(p, (*pipe).close)
	return p
}

func (p *pipe) close() {
	runtime.SetFinalizer(p, nil)
	_ = syscall.Close(p.in)
	_ = syscall.Close(p.out)
}

// carrier is one Carry.
type carrier struct {
	from  *Conn
	to    *Conn     // where Carry leads
	w     io.Writer // to, or where Feed leads
	moved func(n int64)
	piece *[carryPiece]byte
	pipe  *pipe
	short bool // no pipe is asked for: there were none, or they lead nowhere
	n     int
	err   error
}

// Carry takes what from receives to to, until from's peer ends its side: then both errors are nil. moved is told of what was written. It holds
// memory only while there is something to carry.
func Carry(to, from *Conn, moved func(n int64)) (readErr, writeErr error) {
	return (&carrier{from: from, to: to, w: to, moved: moved}).run()
}

// Feed is Carry to what is not a connection: TLS over one, say.
func Feed(to io.Writer, from *Conn, moved func(n int64)) (readErr, writeErr error) {
	return (&carrier{from: from, w: to, moved: moved, short: true}).run()
}

func (c *carrier) run() (readErr, writeErr error) {
	defer c.release()
	readOnce, spliceIn, spliceOut := c.readOnce, c.spliceIn, c.spliceOut
	for {
		if readErr, writeErr = c.step(readOnce); readErr != nil || writeErr != nil {
			break
		}
		for c.n >= carryPiece && !c.short && readErr == nil && writeErr == nil {
			readErr, writeErr = c.through(spliceIn, spliceOut)
		}
		if readErr != nil || writeErr != nil {
			break
		}
	}
	if readErr == io.EOF {
		readErr = nil
	}
	return readErr, writeErr
}

// step carries one piece through memory.
func (c *carrier) step(readOnce func(uintptr) bool) (readErr, writeErr error) {
	if err := c.from.raw.Read(readOnce); err != nil {
		return err, nil
	}
	if c.err != nil {
		return c.err, nil
	}
	_, err := c.w.Write(c.piece[:c.n])
	carryPieces.Put(c.piece)
	c.piece = nil
	if err == nil {
		c.moved(int64(c.n))
	}
	return nil, err
}

func (c *carrier) readOnce(fd uintptr) bool {
	c.piece, _ = carryPieces.Get().(*[carryPiece]byte)
	c.n, c.err = tryRead(fd, c.piece[:])
	if c.err == nil {
		return true
	}
	carryPieces.Put(c.piece)
	c.piece = nil
	return c.err != syscall.EAGAIN
}

// through carries what is there through a pipe. Afterwards n is 0 when there are no more pipes.
func (c *carrier) through(in, out func(uintptr) bool) (readErr, writeErr error) {
	if err := c.from.raw.Read(in); err != nil {
		return err, nil
	}
	if c.err != nil || c.n == 0 {
		return c.err, nil
	}
	n := c.n
	if err := c.to.raw.Write(out); err != nil {
		return nil, err
	}
	if c.err == nil {
		c.moved(int64(n))
	}
	c.releasePipe()
	return nil, c.err
}

func (c *carrier) spliceIn(fd uintptr) bool {
	if c.pipe, _ = pipes.Get().(*pipe); c.pipe == nil {
		c.n, c.err, c.short = 0, nil, true
		return true
	}
	n, err := splice(int(fd), c.pipe.in, pipeSize)
	switch {
	case err == syscall.EAGAIN:
		c.releasePipe()
		return false
	case err != nil:
		c.n, c.err = 0, err
	case n == 0:
		c.n, c.err = 0, io.EOF
	default:
		c.n, c.err = n, nil
		c.pipe.holds = n
	}
	return true
}

func (c *carrier) spliceOut(fd uintptr) bool {
	for c.pipe.holds > 0 {
		n, err := splice(c.pipe.out, int(fd), c.pipe.holds)
		if err == syscall.EAGAIN {
			return false
		}
		if err != nil {
			c.err = err
			return true
		}
		c.pipe.holds -= n
	}
	return true
}

func splice(from, to, most int) (int, error) {
	for {
		n, err := syscall.Splice(from, nil, to, nil, most, spliceMove|spliceNonblock)
		if err != syscall.EINTR {
			return int(n), err
		}
	}
}

func (c *carrier) release() {
	if c.piece != nil {
		carryPieces.Put(c.piece)
		c.piece = nil
	}
	c.releasePipe()
}

// releasePipe gives the pipe back, or up when something is left in it.
func (c *carrier) releasePipe() {
	switch {
	case c.pipe == nil:
	case c.pipe.holds > 0:
		c.pipe.close()
	default:
		pipes.Put(c.pipe)
	}
	c.pipe = nil
}
