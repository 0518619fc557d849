package downstream

import "time"

// Limits bound what one client can take. A zero field means its default; a negative one, where the field allows it, means no limit.
type Limits struct {
	// MaxHeaderBytes bounds a request's head, and its trailers. Default 64 KiB. Over it: 431.
	MaxHeaderBytes int
	// MaxHeaderCount bounds the number of field lines. Default 200. Over it: 431.
	MaxHeaderCount int
	// MaxBodyBytes bounds a request's body. Default none. Over it: 413.
	MaxBodyBytes int64
	// MaxStreams bounds the requests at work on one HTTP/2 or HTTP/3 connection. Default 250.
	MaxStreams int
	// MaxConnections bounds the client connections of one socket, TCP and QUIC each. Default 100,000. Over it a new connection is
	// closed at once.
	MaxConnections int
	// HandshakeTimeout bounds the TLS or QUIC handshake. Default 10 s.
	HandshakeTimeout time.Duration
	// HeaderTimeout bounds the time from a request's first byte to the end of its head. Default 10 s. Over it: 408 in HTTP/1.1, and the
	// connection ends.
	HeaderTimeout time.Duration
	// BodyIdleTimeout bounds the time a client may stay silent within a body, or refuse to take bytes of the response. Default 60 s.
	// Over it: 408, or the response is cut.
	BodyIdleTimeout time.Duration
	// IdleTimeout bounds the time between requests on one connection, and before the first. Default 120 s.
	IdleTimeout time.Duration
	// StreamIdleTimeout bounds the time that a Stream may pass without a byte either way. Default 1 h.
	StreamIdleTimeout time.Duration
	// SessionIdleTimeout is after how long without a datagram either way a Session is over. Default 1 min.
	SessionIdleTimeout time.Duration
	// MaxSessions bounds the Sessions of one UDP socket. Default 10,000. Over it the datagrams of new clients are dropped.
	MaxSessions int
}

// WithDefaults returns l with every zero field filled in.
func (l Limits) WithDefaults() Limits {
	set(&l.MaxHeaderBytes, 64<<10)
	set(&l.MaxHeaderCount, 200)
	set(&l.MaxBodyBytes, -1)
	set(&l.MaxStreams, 250)
	set(&l.MaxConnections, 100_000)
	set(&l.HandshakeTimeout, 10*time.Second)
	set(&l.HeaderTimeout, 10*time.Second)
	set(&l.BodyIdleTimeout, time.Minute)
	set(&l.IdleTimeout, 2*time.Minute)
	set(&l.StreamIdleTimeout, time.Hour)
	set(&l.SessionIdleTimeout, time.Minute)
	set(&l.MaxSessions, 10_000)
	return l
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// period is how often connections look at their limits, which then end something at most two periods late: a quarter of the smallest
// limit, within reason.
func (l *Limits) period() time.Duration {
	const least, most = 5 * time.Millisecond, 500 * time.Millisecond
	smallest := 4 * most
	for _, limit := range [...]time.Duration{
		l.HandshakeTimeout, l.HeaderTimeout, l.BodyIdleTimeout, l.IdleTimeout, l.StreamIdleTimeout, l.SessionIdleTimeout,
	} {
		if limit > 0 {
			smallest = min(smallest, limit)
		}
	}
	return max(smallest/4, least)
}
