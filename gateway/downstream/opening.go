package downstream

import (
	"crypto/tls"
	"errors"
)

// A socket may have listeners that open TLS and others that pass it on unopened, by server name (Gateway API: TLSRoute, mode Passthrough).
// Which one a connection is for stands in its ClientHello, and only crypto/tls reads that here: its server is driven up to the point
// where it has the whole of it and asks for a configuration. What it read on the way is kept.
//
//	client      crypto/tls           wire                          endpoint
//	hello ----> Read, Read ... ----> kept
//	            GetConfigForClient:  decide
//	              open it            what was kept is forgotten
//	              do not open it     silent: its alert goes nowhere
//	                                 what was kept, and what follows --> hello ...
//
// So a ClientHello in however many records and segments is read by the one parser that would read it anyway, and not a byte of the gateway's
// reaches a client whose TLS is not the gateway's to open. On sockets where all TLS is opened nothing is kept.

// maxHello bounds what is read of a ClientHello, records' headers included. One with post-quantum keys and a large ticket has some 4 KiB.
const maxHello = 64 << 10

var (
	errHelloTooLong = errors.New("the ClientHello is too long")
	errNotOpened    = errors.New("the TLS is for an endpoint to open")
)

// opening is how far the gateway got with a client's TLS. The zero opening is of a connection whose TLS is opened.
type opening struct {
	keep       bool   // what is read must be kept
	read       []byte // what was kept
	silent     bool   // the TLS is not opened: nothing is written
	mute       bool   // nobody serves the server name: the connection ends without a word
	stream     bool   // what is within is no HTTP
	serverName string // of a TLS that is not opened, as the client sent it
}

// decide takes what is to become of the connection. It returns what GetConfigForClient returns.
func (w *wire) decide(h Handshake, serverName string) (*tls.Config, error) {
	w.opening.keep, w.opening.stream = false, h.Stream
	if h.Config == nil {
		w.opening.silent, w.opening.serverName = true, serverName
		return nil, errNotOpened
	}
	w.opening.read = nil
	return h.Config, nil
}

// readHello reads and keeps.
func (w *wire) readHello(p []byte) (int, error) {
	if len(w.opening.read) >= maxHello {
		return 0, errHelloTooLong
	}
	n, err := w.Conn.Read(p[:min(len(p), maxHello-len(w.opening.read))])
	w.opening.read = append(w.opening.read, p[:n]...)
	return n, err
}
