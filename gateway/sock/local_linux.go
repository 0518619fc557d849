package sock

import (
	"net"
	"syscall"
)

// LocalSize is room for what AskLocal makes a datagram bring along.
const LocalSize = 64

// AskLocal has a UDP socket that is bound to all interfaces tell of each datagram which address it was sent to (RFC 3542 6.2). An answer
// must leave by that address, and the kernel would choose another where a machine has several.
func AskLocal(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		local, err := syscall.Getsockname(int(fd))
		switch local.(type) {
		case *syscall.SockaddrInet6: // of IPv4 too: the addresses are mapped ones then
			failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1)
		case *syscall.SockaddrInet4:
			failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1)
		default:
			failed = err
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// FromLocal turns what came along with a datagram into what makes an answer leave by the address that the datagram was sent to. It changes
// control and returns a part of it, nil when that says nothing of an address.
func FromLocal(control []byte) []byte {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil || len(messages) != 1 {
		return nil
	}
	// The interface is the kernel's to choose again: in6_pktinfo ends with it, in_pktinfo begins with it.
	const address, index = 16, 4
	m := messages[0]
	switch {
	case m.Header.Level == syscall.IPPROTO_IPV6 && m.Header.Type == syscall.IPV6_PKTINFO && len(m.Data) >= address+index:
		clear(m.Data[address : address+index])
	case m.Header.Level == syscall.IPPROTO_IP && m.Header.Type == syscall.IP_PKTINFO && len(m.Data) >= index:
		clear(m.Data[:index])
	default:
		return nil
	}
	return control
}
