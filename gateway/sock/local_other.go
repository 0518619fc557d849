//go:build !linux

package sock

import (
	"errors"
	"net"
)

// LocalSize is room for what AskLocal makes a datagram bring along: nothing here.
const LocalSize = 0

// AskLocal is not supported here: answers leave by the address that the kernel chooses.
func AskLocal(*net.UDPConn) error { return errors.ErrUnsupported }

// FromLocal returns nil.
func FromLocal([]byte) []byte { return nil }
