package downstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"gatehouse.dev/gatehouse/gateway/codec/h3"
)

// http3Server is the UDP side of a bind.
type http3Server struct {
	bind      *bind
	udp       net.PacketConn
	transport *quic.Transport
	listener  *quic.EarlyListener
	gate      *gate
	spares    sync.Pool // *h3Stream
	over      chan struct{}

	handshakes atomic.Int64 // under way

	sessions members[*h3Session]
}

const (
	// retryFrom is from how many handshakes under way on a new client has to prove its address first, by QUIC's Retry (RFC 9000 8.1.2),
	// which costs it a round trip: with forged addresses it could otherwise have the gateway do the work of many handshakes.
	retryFrom = 500

	// The receive windows at first and at most, in bytes; quic-go lets them grow with what the path can carry. The connection's bounds what
	// a client can make the gateway hold.
	h3StreamWindow = 512 << 10
	h3StreamMost   = 4 << 20
	h3ConnWindow   = 1 << 20
	h3ConnMost     = 8 << 20

	// h3UniStreams are the control stream, QPACK's two and some for extensions.
	h3UniStreams = 8

	// noIdleTimeout stands for no limit, which QUIC has too, but quic-go not.
	noIdleTimeout = 24 * time.Hour
)

// openUDP starts HTTP/3. TCP serves even when it fails: clients are then not told of HTTP/3.
func (b *bind) openUDP() error {
	conn, err := net.ListenPacket("udp", b.listenAddress())
	if err != nil {
		return fmt.Errorf("http/3: the udp address cannot be bound; http/1.1 and http/2 are served: %w", err)
	}
	h := &http3Server{bind: b, udp: conn, gate: b.gate(), over: make(chan struct{})}
	h.spares.New = func() any { return newH3Stream() }
	// The socket goes to quic-go as it is: it enlarges the socket's buffers and reads and writes many packets with one system call.
	h.transport = &quic.Transport{Conn: conn, ConnContext: h.admit, VerifySourceAddress: h.doubts}
	h.listener, err = h.transport.ListenEarly(b.tlsConfig(true), h.config())
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("http/3: %w", err)
	}
	b.http3 = h
	advertised := fmt.Sprintf(`h3=":%d"; ma=86400`, b.Port)
	b.altSvc.Store(&advertised)
	b.serving.Go(h.accept)
	b.serving.Go(h.tick)
	return nil
}

// config leaves Allow0RTT off: no request is taken from early data, which anybody can replay.
func (h *http3Server) config() *quic.Config {
	limits := &h.bind.options.Limits
	idle := limits.IdleTimeout
	if idle <= 0 {
		idle = noIdleTimeout
	}
	return &quic.Config{
		HandshakeIdleTimeout:           max(limits.HandshakeTimeout, 0),
		MaxIdleTimeout:                 idle,
		KeepAlivePeriod:                idle / 2, // a request may take longer; a session without one ends by its tick
		MaxIncomingStreams:             int64(limits.MaxStreams),
		MaxIncomingUniStreams:          h3UniStreams,
		InitialStreamReceiveWindow:     h3StreamWindow,
		MaxStreamReceiveWindow:         h3StreamMost,
		InitialConnectionReceiveWindow: h3ConnWindow,
		MaxConnectionReceiveWindow:     h3ConnMost,
		// A stream that the client has reset counts as long as its exchange is at work (CVE-2023-44487).
		RequireStreamCreditRelease: true,
	}
}

// closeUDP ends HTTP/3, as a socket ends: with time for the exchanges under way.
func (b *bind) closeUDP() {
	leaving := b.http3
	b.http3 = nil
	b.altSvc.Store(nil)
	ctx, cancel := context.WithTimeout(context.Background(), b.options.DrainTime)
	b.leaving = append(b.leaving, cancel)
	b.serving.Go(func() {
		defer cancel()
		leaving.drain(ctx)
	})
}

// endLeaving cuts what closeUDP waits for.
func (b *bind) endLeaving() {
	for _, cut := range b.leaving {
		cut()
	}
}

var (
	errTooManyConnections = errors.New("too many connections")
	errDraining           = errors.New("the socket is about to be closed")
)

// h3GuestKey finds the h3Guest in a connection's context.
type h3GuestKey struct{}

// h3Guest is a client that was let in and whose handshake may not be done.
type h3Guest struct {
	server  *http3Server
	arrived atomic.Bool // the handshake is over
}

// admit lets a client in, before its handshake, or refuses it. The newest is the one refused.
func (h *http3Server) admit(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	if h.sessions.over() {
		return nil, errDraining
	}
	if !h.gate.enter() {
		return nil, errTooManyConnections
	}
	h.handshakes.Add(1)
	guest := &h3Guest{server: h}
	context.AfterFunc(ctx, func() {
		guest.arrive()
		h.gate.leave()
	})
	return context.WithValue(ctx, h3GuestKey{}, guest), nil
}

// arrive says that the handshake is done, or has failed.
func (g *h3Guest) arrive() {
	if g.arrived.CompareAndSwap(false, true) {
		g.server.handshakes.Add(-1)
	}
}

// doubts reports whether a new client has to prove its address.
func (h *http3Server) doubts(net.Addr) bool { return h.handshakes.Load() >= retryFrom }

// accept ends when the listener is closed.
func (h *http3Server) accept() {
	for {
		conn, err := h.listener.Accept(context.Background())
		if err != nil {
			return
		}
		s := newH3(h, conn)
		if h.sessions.add(s) {
			go s.run()
		} else {
			s.shut(h3.NoError, "")
		}
	}
}

// tick has every session look at its limits, again and again.
func (h *http3Server) tick() {
	ticker := time.NewTicker(h.bind.options.Limits.period())
	defer ticker.Stop()
	var sessions []*h3Session
	for {
		select {
		case <-h.over:
			return
		case <-ticker.C:
			now := time.Now() // the tick may have waited, and a limit must not fire early
			sessions = h.sessions.all(sessions[:0])
			for i, s := range sessions {
				s.tick(now)
				sessions[i] = nil
			}
		}
	}
}

// drain sends GOAWAY, waits for the exchanges under way, and cuts what is left when ctx ends.
func (h *http3Server) drain(ctx context.Context) {
	h.sessions.drain(ctx)
	close(h.over)
	// Until here the listener has told new clients that they are refused.
	_ = h.listener.Close()
	_ = h.transport.Close()
	_ = h.udp.Close()
}
