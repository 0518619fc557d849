package downstream

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// responder implements exchange.Responder over net/http.
type responder struct {
	bind     *bind
	exchange *exchange.Exchange
	w        http.ResponseWriter
	r        *http.Request
	control  *http.ResponseController
	body     *clientBody // nil when the request has none
	hijacked *hijacked
	aborted  bool

	// heads serialises response heads: 100 (Continue) is sent by who reads the body first.
	heads sync.Mutex
	final bool // the final head is out; guarded by heads
}

// proceed sends 100 (Continue), unless the final head is out already.
func (o *responder) proceed() {
	o.heads.Lock()
	defer o.heads.Unlock()
	if !o.final {
		o.w.WriteHeader(http.StatusContinue)
	}
}

// Inform sends an interim response.
func (o *responder) Inform(status int, fields exchange.Fields) error {
	o.heads.Lock()
	defer o.heads.Unlock()
	h := o.w.Header()
	for _, f := range fields {
		h[f.Name] = append(h[f.Name], f.Value)
	}
	o.w.WriteHeader(status)
	clear(h)
	return nil
}

// Respond sends the final head.
func (o *responder) Respond(resp *exchange.Response, length int64) error {
	if resp.Status == http.StatusSwitchingProtocols {
		return o.switchProtocols(resp)
	}
	o.heads.Lock()
	defer o.heads.Unlock()
	o.final = true
	o.fill(resp, length)
	o.extendWrite()
	o.w.WriteHeader(resp.Status)
	return nil
}

func (o *responder) fill(resp *exchange.Response, length int64) {
	h := o.w.Header()
	h["Content-Type"] = nil // without an entry net/http would guess one
	for _, f := range resp.Fields {
		switch f.ID {
		case exchange.ContentLength:
		case exchange.ContentType, exchange.Date: // net/http must recognise these
			key := http.CanonicalHeaderKey(f.Name)
			h[key] = append(h[key], f.Value)
		default:
			h[f.Name] = append(h[f.Name], f.Value)
		}
	}
	if length >= 0 && bodyAllowed(resp.Status) {
		h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	if o.body != nil && o.body.tcp != nil && !o.body.complete() {
		// What is left of the body would be read as the next request.
		h["Connection"] = []string{"close"}
	}
	if advertised := o.bind.altSvc.Load(); advertised != nil && o.exchange.Peer.Proto != exchange.HTTP3 {
		h["Alt-Svc"] = []string{*advertised}
	}
}

// bodyAllowed is RFC 9110 6.4.1: 1xx and 204 carry no content and no length; 304 may tell the length it would have had.
func bodyAllowed(status int) bool { return status >= 200 && status != http.StatusNoContent }

// extendWrite gives the client another idle time to take bytes.
func (o *responder) extendWrite() {
	if idle := o.bind.options.Limits.BodyIdleTimeout; idle > 0 {
		_ = o.control.SetWriteDeadline(time.Now().Add(idle))
	}
}

// Write sends body bytes.
func (o *responder) Write(p []byte) (int, error) {
	o.extendWrite()
	return o.w.Write(p)
}

// Flush sends what is held back.
func (o *responder) Flush() error { return o.control.Flush() }

// Finish ends the response. net/http ends the message when the handler returns.
func (o *responder) Finish(trailers exchange.Fields) error {
	for _, f := range trailers {
		name := http.TrailerPrefix + http.CanonicalHeaderKey(f.Name)
		o.w.Header()[name] = append(o.w.Header()[name], f.Value)
	}
	if o.exchange.Peer.Proto < exchange.HTTP2 {
		_ = o.control.SetWriteDeadline(time.Time{})
	}
	return nil
}

// Abort makes the client notice that the response is not whole.
func (o *responder) Abort() { o.aborted = true }

// switchProtocols accepts an upgrade: 101 on a taken-over HTTP/1.1 connection, 200 on a stream.
func (o *responder) switchProtocols(resp *exchange.Response) error {
	if o.exchange.Peer.Proto >= exchange.HTTP2 {
		o.fill(&exchange.Response{Status: http.StatusOK, Fields: resp.Fields}, -1)
		o.w.WriteHeader(http.StatusOK)
		return o.control.Flush()
	}
	conn, buffered, err := o.control.Hijack()
	if err != nil {
		return err
	}
	o.hijacked = &hijacked{Conn: conn, tunnels: &o.bind.tunnels}
	if buffered.Reader.Buffered() > 0 {
		// Bytes before the 101 can only be meant for a server that does not look: a smuggled request.
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		return errors.Join(errors.New("the client sent bytes before the upgrade was accepted"), conn.Close())
	}
	_ = conn.SetDeadline(time.Time{})
	head := bufio.NewWriter(conn)
	_, _ = head.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + o.exchange.Req.Protocol + "\r\n")
	for _, f := range resp.Fields {
		if f.ID != exchange.ContentLength {
			_, _ = head.WriteString(f.Name + ": " + f.Value + "\r\n")
		}
	}
	_, _ = head.WriteString("\r\n")
	return head.Flush()
}

// Tunnel returns the raw stream.
func (o *responder) Tunnel() (exchange.Stream, error) {
	if o.hijacked != nil {
		o.bind.tunnels.add(o.hijacked)
		return o.hijacked, nil
	}
	return &streamTunnel{responder: o}, nil
}

// hijacked is an HTTP/1.1 connection after 101.
type hijacked struct {
	net.Conn
	tunnels *tunnelSet
}

// CloseWrite half-closes the connection.
func (h *hijacked) CloseWrite() error {
	if half, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection.
func (h *hijacked) Close() error {
	defer h.tunnels.remove(h)
	return h.Conn.Close()
}

// streamTunnel is an HTTP/2 or HTTP/3 stream after an accepted CONNECT. Its sending side ends when the handler returns.
type streamTunnel struct{ responder *responder }

// Read returns the client's bytes.
func (s *streamTunnel) Read(p []byte) (int, error) { return s.responder.r.Body.Read(p) }

// Write sends bytes at once.
func (s *streamTunnel) Write(p []byte) (int, error) {
	n, err := s.responder.w.Write(p)
	if err == nil {
		err = s.responder.control.Flush()
	}
	return n, err
}

// CloseWrite cannot end one side of the stream before the handler returns.
func (s *streamTunnel) CloseWrite() error { return errors.ErrUnsupported }

// Close ends reading; the stream ends when the handler returns.
func (s *streamTunnel) Close() error { return s.responder.r.Body.Close() }
