package load

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// Handshakes makes a new TLS connection for each request. One handshake and one request count as one.
type Handshakes struct {
	// Workers is how many connect at a time.
	Workers int
	// Resumed lets each worker resume the session of its last connection (RFC 8446 2.2), in place of a full handshake.
	Resumed bool
}

// Run implements Load.
func (l Handshakes) Run(ctx context.Context, e *Env) (Result, error) {
	return newRun().workers(ctx, e, l.Workers, func(i int, t *tally) { l.work(t, i, e.TLS) })
}

func (l Handshakes) work(t *tally, worker int, address string) {
	conf := clientTLS(address, "http/1.1")
	if l.Resumed {
		conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	head := Request{Path: "/b/130"}.wire(address)
	buf := make([]byte, 16<<10)
	for n := 0; !t.run.over() && t.failures < mostFailures; n++ {
		// A closed connection keeps its pair of addresses for a while. Loopback has more than one: these go around.
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+worker), byte(1+n%250))}, Timeout: 5 * time.Second}
		began := time.Now()
		err := func() error {
			conn, err := from.Dial("tcp", address)
			if err != nil {
				return err
			}
			t.run.keep(conn)
			defer t.run.drop(conn)
			secure := tls.Client(conn, conf)
			if err := secure.Handshake(); err != nil {
				return err
			}
			if l.Resumed && n > 0 && !secure.ConnectionState().DidResume {
				return errors.New("the proxy did not resume the session")
			}
			c := &h1Conn{conn: secure, buf: buf}
			if err := c.send(head, 0, nil, nil); err != nil {
				return err
			}
			// The session's ticket comes with the answer at the latest.
			if err := c.receive(nil); err != nil {
				return err
			}
			return secure.Close()
		}()
		t.ended(time.Since(began), err)
	}
}
