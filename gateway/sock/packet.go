package sock

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// MaxDatagram is room for the largest datagram that UDP can carry.
const MaxDatagram = 64 << 10

// datagrams lends the memory that datagrams are read into.
var datagrams = sync.Pool{New: func() any { return new([MaxDatagram]byte) }}

// Packet is a UDP socket that is connected to one peer. It holds memory only while there is something to read, so that ten thousand
// quiet ones cost ten thousand parked goroutines and nothing more.
type Packet struct {
	*net.UDPConn
	raw syscall.RawConn
}

// NewPacket wraps a connected socket.
func NewPacket(c *net.UDPConn) (*Packet, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Packet{UDPConn: c, raw: raw}, nil
}

// Receive hands every datagram that comes to take, until the socket is closed or an error is pending: ECONNREFUSED where the peer's
// machine says that nobody listens. All that has arrived is taken with one wake-up. p is valid until take returns.
func (c *Packet) Receive(take func(p []byte)) error {
	var failed error
	err := c.raw.Read(func(fd uintptr) bool {
		room, _ := datagrams.Get().(*[MaxDatagram]byte)
		defer datagrams.Put(room)
		for {
			n, err := syscall.Read(int(fd), room[:])
			switch {
			case err == syscall.EINTR:
			case err == syscall.EAGAIN:
				return false
			case err != nil:
				failed = err
				return true
			default:
				take(room[:n])
			}
		}
	})
	if err == nil {
		err = failed
	}
	return err
}

// Refused reports whether an error says that nobody listens at the peer's port, or no way leads there (ICMP, RFC 1122 4.1.3.3).
func Refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
