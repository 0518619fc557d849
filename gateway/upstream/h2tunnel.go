package upstream

import (
	"errors"
	"net"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Extended CONNECT (RFC 8441) opens a tunnel on a stream of a shared connection:
//
//	HEADERS :method CONNECT, :protocol websocket  ->
//	                                             <-   HEADERS 2xx: the tunnel is open; anything else is an ordinary answer
//	DATA                                        <-->  DATA
//	END_STREAM                                  <-->  END_STREAM, each for its direction; RST_STREAM ends both

// h2Tunnel is a stream as raw bytes.
type h2Tunnel struct{ s *h2Stream }

var errSentEnd = errors.New("the tunnel's sending side is closed")

// answerTunnel makes a final head the answer to a request for another protocol.
func (s *h2Stream) answerTunnel(a *Attempt) {
	if a.Response.Status/100 != 2 {
		_ = s.send.end(s.conn, nil) // nothing will be sent
		a.Answer = s
		return
	}
	a.Response.Status = 101
	a.Response.Fields.DelID(exchange.ContentLength)
	if a.Request.Method != "CONNECT" {
		if key, ok := a.Request.Fields.Lookup(keyField); ok {
			a.Response.Fields.Set(acceptField, acceptOf(key))
		}
	}
	a.Answer, a.Tunnel = exchange.NoBody, &s.tunnel
}

// Read returns bytes from the endpoint: io.EOF when it ended its side.
func (t *h2Tunnel) Read(p []byte) (int, error) { return t.s.Read(p) }

// Write sends bytes to the endpoint as its windows allow.
func (t *h2Tunnel) Write(p []byte) (int, error) {
	if t.s.sentEnd.Load() {
		return 0, errSentEnd
	}
	n, err := t.s.send.data(t.s.conn, p, false)
	switch {
	case err == nil:
	case err == errOver:
		err = net.ErrClosed
	default:
		err = t.s.faultOf(t.s.attempt, err)
	}
	return n, err
}

// CloseWrite ends the sending side; the other stays open.
func (t *h2Tunnel) CloseWrite() error {
	return t.s.send.end(t.s.conn, nil)
}

// Close ends both sides.
func (t *h2Tunnel) Close() error {
	t.s.inbox.Cut(net.ErrClosed)
	t.s.giveUp(h2.Cancel)
	return nil
}
