package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// Frame and stream types of HTTP/3 (RFC 9114 7.2, 6.2).
const (
	h3Data     = 0x0
	h3Headers  = 0x1
	h3Settings = 0x4
	h3Control  = 0x0
)

// dialH3 opens a QUIC connection and does what HTTP/3 asks of a client at its start: a control stream with settings, here empty ones,
// which leaves QPACK without a dynamic table. What the server sends on its own streams is dropped.
//
// The requests run over quic-go's streams directly, below its HTTP/3 layer: a request is one write of the same bytes each time, so that the
// load costs less than the proxy.
func dialH3(ctx context.Context, address string) (*quic.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := quic.DialAddr(ctx, address, clientTLS(address, "h3"), &quic.Config{
		InitialStreamReceiveWindow: 1 << 20, InitialConnectionReceiveWindow: 16 << 20, MaxIdleTimeout: 30 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	control, err := conn.OpenUniStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := control.Write([]byte{h3Control, h3Settings, 0}); err != nil {
		return nil, err
	}
	go func() {
		for {
			s, err := conn.AcceptUniStream(conn.Context())
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, s) }()
		}
	}()
	return conn, nil
}

// h3Request is a GET as a HEADERS frame, with static and literal fields only.
func h3Request(address, path string) ([]byte, error) {
	var block encoded
	enc := qpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", address}, {":path", path}, {"user-agent", "bench"}} {
		if err := enc.WriteField(qpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return nil, err
		}
	}
	frame := quicvarint.Append([]byte{h3Headers}, uint64(len(block)))
	return append(frame, block...), nil
}

// h3Answer judges the bytes of a whole answer: HEADERS with :status 200, then DATA.
func h3Answer(b []byte) (body int, err error) {
	for first := true; len(b) > 0; {
		kind, n, err := quicvarint.Parse(b)
		if err != nil {
			return body, err
		}
		size, m, err := quicvarint.Parse(b[n:])
		if err != nil {
			return body, err
		}
		if b = b[n+m:]; uint64(len(b)) < size {
			return body, errors.New("a frame is cut off")
		}
		payload := b[:size]
		b = b[size:]
		switch {
		case kind == h3Headers && first:
			first = false
			if err := h3Status(payload); err != nil {
				return body, err
			}
		case kind == h3Data:
			body += len(payload)
		}
	}
	return body, nil
}

// h3Status looks for :status in a QPACK block without references to a dynamic table (RFC 9204 4.5): two bytes of prefix, then fields. Nearly
// every server begins with entry 25 of the static table, which is ":status: 200"; the others are decoded.
func h3Status(block []byte) error {
	const indexedStatic200 = 0xc0 | 25
	if len(block) > 2 && block[2] == indexedStatic200 {
		return nil
	}
	fields := qpack.NewDecoder().Decode(block)
	for {
		f, err := fields()
		if err != nil {
			return fmt.Errorf("response fields without a status: %w", err)
		}
		if f.Name == ":status" {
			if f.Value != "200" {
				return fmt.Errorf("status %s", f.Value)
			}
			return nil
		}
	}
}

type quicCloser struct{ *quic.Conn }

// Close closes the connection with H3_NO_ERROR (RFC 9114 8.1).
func (c quicCloser) Close() error { return c.CloseWithError(0x100, "") }

// h3Stream sends requests one after another on streams of conn.
func h3Stream(t *tally, conn *quic.Conn, request []byte) {
	buf := make([]byte, 0, 64<<10)
	for !t.run.over() && t.failures < mostFailures && conn.Context().Err() == nil {
		began := time.Now()
		var body int
		err := func() error {
			s, err := conn.OpenStreamSync(conn.Context())
			if err != nil {
				return err
			}
			if _, err := s.Write(request); err != nil {
				return err
			}
			if err := s.Close(); err != nil {
				return err
			}
			buf = buf[:0]
			for {
				if len(buf) == cap(buf) {
					return errors.New("an answer over 64 KiB")
				}
				n, err := s.Read(buf[len(buf):cap(buf)])
				buf = buf[:len(buf)+n]
				if err == io.EOF {
					break
				}
				if err != nil {
					return err
				}
			}
			body, err = h3Answer(buf)
			return err
		}()
		t.ended(time.Since(began), err)
		t.carried(body)
	}
}

// h3Load runs conns connections with streams requests under way on each.
func h3Load(ctx context.Context, e *Env, conns, streams int, path string) (Result, error) {
	request, err := h3Request(e.TLS, path)
	if err != nil {
		return Result{}, err
	}
	r := newRun()
	var opened []*quic.Conn
	for range conns {
		c, err := dialH3(ctx, e.TLS)
		if err != nil {
			r.stop()
			return Result{}, fmt.Errorf("HTTP/3: %w", err)
		}
		opened = append(opened, c)
		r.keep(quicCloser{c})
	}
	return r.workers(ctx, e, conns*streams, func(i int, t *tally) { h3Stream(t, opened[i%conns], request) })
}
