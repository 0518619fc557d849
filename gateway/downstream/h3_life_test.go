package downstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"gatehouse.dev/gatehouse/gateway/codec/h3"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// TestH3Breaches holds what each breach of the protocol on a request stream ends, and with which code.
func TestH3Breaches(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(echo)})
	head := h3Get(t, "POST")
	for name, tc := range map[string]struct {
		stream string
		open   bool // the stream is not ended
		code   h3.Code
		conn   bool
	}{
		"nothing":                  {"", false, h3.RequestIncomplete, false},
		"only grease":              {string(h3Frame(0x21, []byte("x"))), false, h3.RequestIncomplete, false},
		"half a head":              {head[:10], false, h3.FrameError, true},
		"half a body":              {head + h3Data("hello")[:4], false, h3.FrameError, true},
		"body first":               {h3Data("x"), true, h3.FrameUnexpected, true},
		"settings":                 {string(h3Frame(4, nil)), true, h3.FrameUnexpected, true},
		"goaway within a body":     {head + string(h3Frame(7, []byte{0})), true, h3.FrameUnexpected, true},
		"push promise":             {string(h3Frame(5, []byte{0})), true, h3.FrameUnexpected, true},
		"a frame of http/2":        {string(h3Frame(2, []byte("12345"))), true, h3.FrameUnexpected, true},
		"body after trailers":      {head + h3Headers(t, "x-a", "1") + h3Data("x"), true, h3.FrameUnexpected, true},
		"undecodable head":         {string(h3Frame(1, []byte{0, 0, 0x80})), true, h3.DecompressionFailed, true},
		"undecodable trailers":     {head + string(h3Frame(1, []byte{0, 0, 0x80})), true, h3.DecompressionFailed, true},
		"dynamic table":            {string(h3Frame(1, []byte{2, 0, 0x80})), true, h3.DecompressionFailed, true},
		"grease without end":       {strings.Repeat(string(h3Frame(0x21, nil)), 100), true, h3.ExcessiveLoad, true},
		"empty bodies without end": {head + strings.Repeat(h3Data(""), 100), true, h3.ExcessiveLoad, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := h3Dial(t, h.address)
			r := h3Open(t, conn)
			_, _ = io.WriteString(r, tc.stream)
			if !tc.open {
				_ = r.Close()
			}
			a, err := r.hear()
			code, connection := h3Code(err)
			switch {
			case tc.conn && !connection: // the response to the breach may overtake the connection's end
				h3WantEnd(t, conn, tc.code)
			case code != tc.code || connection != tc.conn:
				t.Errorf("got %+v, %v, want %v", a, err, tc.code)
			}
			if !tc.conn { // others are unharmed
				next := h3Open(t, conn)
				next.end(h3Get(t, "GET"))
				if a := next.mustHear(); a.status != 200 {
					t.Errorf("then got %+v", a)
				}
			}
		})
	}
}

// TestH3ControlStreams holds what a client may do on its unidirectional streams.
func TestH3ControlStreams(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(echo)})
	unknown := "\x40\x54data"
	for name, tc := range map[string]struct {
		streams []string
		close   int // the stream that is ended, from 1
		reset   int
		code    h3.Code // 0: the connection goes on
	}{
		"all of them":            {[]string{"\x00\x04\x00", "\x02", "\x03", unknown}, 0, 0, 0},
		"types in two bytes":     {[]string{"\x40\x00\x04\x00", "\x40\x02\x20", "\x40\x03\x44"}, 0, 0, 0},
		"an unknown one ends":    {[]string{"\x00\x04\x00", unknown}, 2, 0, 0},
		"one ends before a type": {[]string{"\x00\x04\x00", "\x40"}, 2, 0, 0},
		"no settings":            {[]string{"\x00\x07\x01\x00"}, 0, 0, h3.MissingSettings},
		"settings twice":         {[]string{"\x00\x04\x00\x04\x00"}, 0, 0, h3.FrameUnexpected},
		"two control streams":    {[]string{"\x00\x04\x00", "\x00\x04\x00"}, 0, 0, h3.StreamCreationError},
		"two encoder streams":    {[]string{"\x02", "\x02"}, 0, 0, h3.StreamCreationError},
		"two decoder streams":    {[]string{"\x03", "\x03"}, 0, 0, h3.StreamCreationError},
		"a push stream":          {[]string{"\x01\x00"}, 0, 0, h3.StreamCreationError},
		"control ends":           {[]string{"\x00\x04\x00"}, 1, 0, h3.ClosedCriticalStream},
		"control is reset":       {[]string{"\x00\x04\x00"}, 0, 1, h3.ClosedCriticalStream},
		"encoder ends":           {[]string{"\x02"}, 1, 0, h3.ClosedCriticalStream},
		"decoder is reset":       {[]string{"\x03\x44"}, 0, 1, h3.ClosedCriticalStream},
		"encoder inserts":        {[]string{"\x02\x3f\xe1\x1f"}, 0, 0, h3.EncoderStreamError},
		"decoder acknowledges":   {[]string{"\x03\x80"}, 0, 0, h3.DecoderStreamError},
		"a setting of http/2":    {[]string{"\x00\x04\x02\x02\x00"}, 0, 0, h3.SettingsError},
		"a flood on control":     {[]string{"\x00\x04\x00" + strings.Repeat("\x21\x00", 5000)}, 0, 0, h3.ExcessiveLoad},
		"a flood on decoder":     {[]string{"\x03" + strings.Repeat("\x40", 5000)}, 0, 0, h3.ExcessiveLoad},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := h3Connect(t, h.address)
			if err != nil {
				t.Fatal(err)
			}
			for i, text := range tc.streams {
				str, err := conn.OpenUniStream()
				if err == nil {
					_, err = io.WriteString(str, text)
				}
				if err != nil && tc.code == 0 { // otherwise the connection may have ended already
					t.Fatal(err)
				}
				if err != nil {
					break
				}
				if i+1 == tc.close {
					_ = str.Close()
				}
				if i+1 == tc.reset {
					// A reset may overtake what was written, so that the type is not seen: an answer says that it was.
					h3Ask(t, conn)
					str.CancelWrite(1)
				}
			}
			if tc.code != 0 {
				h3WantEnd(t, conn, tc.code)
				return
			}
			h3Ask(t, conn)
		})
	}
}

// h3Ask sends a request and fails the test unless it is answered.
func h3Ask(t testing.TB, conn *quic.Conn) {
	t.Helper()
	r := h3Open(t, conn)
	r.end(h3Get(t, "GET"))
	if a := r.mustHear(); a.status != 200 {
		t.Errorf("got %+v", a)
	}
}

// TestH3Floods holds budgets: who is over one loses the connection, and nobody else notices.
func TestH3Floods(t *testing.T) {
	t.Parallel()
	whole := func(text string) func(*quic.Stream) error {
		return func(str *quic.Stream) error {
			_, err := io.WriteString(str, text)
			return errors.Join(err, str.Close())
		}
	}
	cut := func(text string) func(*quic.Stream) error {
		return func(str *quic.Stream) error {
			_, err := io.WriteString(str, text)
			reset(str, h3.RequestCancelled)
			return err
		}
	}
	for name, flood := range map[string]func(str *quic.Stream) error{
		"rapid reset":           cut(h3Get(t, "GET")),
		"reset before the head": cut(h3Get(t, "GET")[:5]),
		"malformed requests":    whole(h3Get(t, "GET", "A", "b")),
		"empty streams":         whole(""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t, houseOptions{secure: true, limits: Limits{MaxStreams: 50}, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
				if x.Req.Target == "/a?b" && x.Fault == nil {
					<-x.Life.Done()
				}
				reply(w, 200, "ok")
			})})
			bad := h3Dial(t, h.address)
			ctx, cancel := context.WithTimeout(bad.Context(), patience)
			defer cancel()
			for err := error(nil); err == nil; {
				var str *quic.Stream
				if str, err = bad.OpenStreamSync(ctx); err == nil {
					err = flood(str)
				}
			}
			h3WantEnd(t, bad, h3.ExcessiveLoad)
			r := h3Open(t, h3Dial(t, h.address))
			r.end(h3Headers(t, ":method", "GET", ":scheme", "https", ":authority", "x.test", ":path", "/"))
			if a := r.mustHear(); a.status != 200 {
				t.Errorf("another client got %+v", a)
			}
		})
	}
}

// TestH3ResetStreamsCount: a stream counts against MaxStreams as long as its exchange is at work, although the client has reset it.
func TestH3ResetStreamsCount(t *testing.T) {
	t.Parallel()
	const most = 5
	reached, release := make(chan struct{}, 100), make(chan struct{})
	h := build(t, houseOptions{secure: true, limits: Limits{MaxStreams: most}, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
		reached <- struct{}{}
		<-release
		reply(w, 200, "ok")
	})})
	conn := h3Dial(t, h.address)
	for range most {
		r := h3Open(t, conn)
		r.end(h3Get(t, "GET"))
		<-reached
		reset(r.Stream, h3.RequestCancelled)
	}
	if _, err := conn.OpenStream(); err == nil {
		t.Error("another stream is allowed although the exchanges go on")
	}
	close(release)
	h3Ask(t, conn)
}

// TestH3ClientGoes ends the exchange in every way a client can go.
func TestH3ClientGoes(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(conn *quic.Conn, r *h3Request){
		"stop":  func(_ *quic.Conn, r *h3Request) { r.CancelRead(quic.StreamErrorCode(h3.RequestCancelled)) },
		"reset": func(_ *quic.Conn, r *h3Request) { reset(r.Stream, h3.RequestCancelled) },
		"close": func(conn *quic.Conn, _ *h3Request) { _ = conn.CloseWithError(0x100, "") },
	} {
		for what, request := range map[string]string{"no body": h3Get(t, "GET"), "half a body": h3Get(t, "POST", "content-length", "9") + h3Data("half")} {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				reached, ended := make(chan struct{}), make(chan *exchange.Fault)
				h := build(t, houseOptions{secure: true, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
					reached <- struct{}{}
					<-x.Life.Done()
					ended <- x.Life.Fault()
					w.Abort()
				})})
				conn := h3Dial(t, h.address)
				r := h3Open(t, conn)
				r.say(request)
				<-reached
				leave(conn, r)
				if fault := <-ended; fault == nil || fault.Kind != exchange.ClientAborted {
					t.Errorf("the exchange ended with %v", fault)
				}
			})
		}
	}
}

// TestH3BodyReset: a client that resets its side within the body ends the read, and the exchange.
func TestH3BodyReset(t *testing.T) {
	t.Parallel()
	reached, ended := make(chan struct{}), make(chan error)
	h := build(t, houseOptions{secure: true, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
		close(reached)
		_, err := io.Copy(io.Discard, x.ReqBody)
		if !x.Life.Over() {
			t.Error("the exchange lives on")
		}
		ended <- err
		w.Abort()
	})})
	r := h3Open(t, h3Dial(t, h.address))
	r.say(h3Get(t, "POST"), h3Data("half"))
	<-reached
	r.CancelWrite(quic.StreamErrorCode(h3.RequestCancelled))
	if fault, ok := errors.AsType[*exchange.Fault](<-ended); !ok || fault.Kind != exchange.ClientAborted {
		t.Errorf("the body ended with %v", fault)
	}
	if _, err := r.hear(); err == nil {
		t.Error("the client got a whole response")
	}
}

// TestH3BodyClose: whoever reads the body is not left waiting once nobody wants the rest.
func TestH3BodyClose(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
		begun, ended := make(chan struct{}), make(chan error)
		go func() {
			one := make([]byte, 1)
			_, _ = x.ReqBody.Read(one)
			close(begun)
			_, err := io.Copy(io.Discard, x.ReqBody)
			ended <- err
		}()
		<-begun
		_ = x.ReqBody.Close()
		if fault, ok := errors.AsType[*exchange.Fault](<-ended); !ok || fault.Kind != exchange.ClientAborted {
			t.Errorf("the read ended with %v", fault)
		}
		reply(w, 200, "ok")
	})})
	conn := h3Dial(t, h.address)
	for range 20 {
		r := h3Open(t, conn)
		r.say(h3Get(t, "POST"), h3Data("x"))
		if a := r.mustHear(); a.body != "ok" {
			t.Errorf("got %+v", a)
		}
	}
}

// TestH3Abort: a response that cannot be completed is seen not to be whole.
func TestH3Abort(t *testing.T) {
	t.Parallel()
	abort := func(length int64) serve {
		return func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, length)
			_, _ = io.WriteString(w, "partial")
			_ = w.Flush()
			w.Abort()
		}
	}
	for name, handler := range map[string]serve{
		"length":      abort(100),
		"no length":   abort(-1),
		"no response": func(*exchange.Exchange, exchange.Responder) {},
		"not finished": func(_ *exchange.Exchange, w exchange.Responder) {
			_, _ = w.Respond(&exchange.Response{Status: 200}, -1), w.Flush()
		},
		"short": func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, 3)
			_, _ = io.WriteString(w, "x")
			if w.Finish(nil) == nil {
				t.Error("a body shorter than its head says was taken")
			}
		},
		"more than told": func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, 3)
			if _, err := io.WriteString(w, "four"); err == nil {
				t.Error("a body longer than its head says was taken")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := build(t, houseOptions{secure: true, handler: handler})
			r := h3Open(t, h3Dial(t, h.address))
			r.end(h3Get(t, "GET"))
			a, err := r.hear()
			if code, connection := h3Code(err); code != h3.InternalError || connection {
				t.Errorf("the client got %+v, %v", a, err)
			}
		})
	}
	t.Run("finish left out", func(t *testing.T) {
		h := build(t, houseOptions{secure: true, handler: serve(func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, 2)
			_, _ = io.WriteString(w, "ok")
		})})
		h3Ask(t, h3Dial(t, h.address))
	})
}

// TestH3Timeouts holds the limits of every phase.
func TestH3Timeouts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		limits Limits
		sent   string
		status int     // 0: the stream is reset
		code   h3.Code // then
	}{
		"half a head":         {Limits{HeaderTimeout: soon}, h3Get(t, "GET")[:9], 0, h3.RequestIncomplete},
		"grease and no head":  {Limits{HeaderTimeout: soon}, string(h3Frame(0x21, nil)), 0, h3.RequestIncomplete},
		"half a body":         {Limits{BodyIdleTimeout: soon}, h3Get(t, "POST", "content-length", "5") + h3Data("he"), 408, 0},
		"no body":             {Limits{BodyIdleTimeout: soon}, h3Get(t, "POST"), 408, 0},
		"half a body's frame": {Limits{BodyIdleTimeout: soon}, h3Get(t, "POST") + h3Data("hello")[:4], 408, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t, houseOptions{secure: true, limits: tc.limits, handler: serve(echo)})
			r := h3Open(t, h3Dial(t, h.address))
			began := time.Now()
			r.say(tc.sent)
			a, err := r.hear()
			code, connection := h3Code(err)
			if a.status != tc.status || connection || tc.status == 0 && code != tc.code || tc.status != 0 && err != nil {
				t.Errorf("got %+v, %v", a, err)
			}
			if took := time.Since(began); took < soon {
				t.Errorf("it took %v with a limit of %v", took, soon)
			}
		})
	}
}

// TestH3BodyTrickle: the limit is for one wait.
func TestH3BodyTrickle(t *testing.T) {
	t.Parallel()
	const limit = 250 * time.Millisecond
	h := build(t, houseOptions{secure: true, limits: Limits{BodyIdleTimeout: limit}, handler: serve(echo)})
	r := h3Open(t, h3Dial(t, h.address))
	r.say(h3Get(t, "POST"))
	tick := time.NewTicker(limit / 5)
	defer tick.Stop()
	for range 10 {
		<-tick.C
		r.say(h3Data("x"))
	}
	_ = r.Close()
	if a := r.mustHear(); a.status != 200 || !strings.HasSuffix(a.body, "-1:xxxxxxxxxx") {
		t.Errorf("got %+v", a)
	}
}

func TestH3IdleTimeout(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, limits: Limits{IdleTimeout: 4 * soon}, handler: serve(echo)})
	for name, use := range map[string]func(conn *quic.Conn){
		"unused": func(*quic.Conn) {},
		"used":   func(conn *quic.Conn) { h3Ask(t, conn) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			// The client keeps the QUIC connection alive; what is idle is HTTP.
			conn, err := quic.DialAddr(ctx, h.address, h3TLS(), &quic.Config{KeepAlivePeriod: soon})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseWithError(0, "")
			use(conn)
			h3WantEnd(t, conn, h3.NoError)
			if took := time.Since(began); took < 4*soon {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestH3SlowReader: a client that takes no more bytes loses the response.
func TestH3SlowReader(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	h := build(t, houseOptions{secure: true, limits: Limits{BodyIdleTimeout: soon}, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
		_ = w.Respond(&exchange.Response{Status: 200}, -1)
		part := make([]byte, 32<<10)
		for {
			if _, err := w.Write(part); err != nil {
				<-x.Life.Done()
				w.Abort()
				ended <- x.Life.Fault()
				return
			}
		}
	})})
	r := h3Open(t, h3Dial(t, h.address))
	r.end(h3Get(t, "GET"))
	if fault, ok := errors.AsType[*exchange.Fault](<-ended); !ok || fault.Kind != exchange.ClientAborted {
		t.Errorf("the exchange ended with %v", fault)
	}
	if _, err := r.hear(); err == nil {
		t.Error("the response is whole")
	}
}

// TestH3NoCredit: a small response waits for a client that has no room for it, and the others do not wait for that.
func TestH3NoCredit(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: brief(3000)})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, h.address, h3TLS(), &quic.Config{InitialStreamReceiveWindow: 2000, MaxStreamReceiveWindow: 4000})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0x100, "")
	var waiting []*h3Request
	for range 3 {
		r := h3Open(t, conn)
		r.end(h3Get(t, "GET"))
		waiting = append(waiting, r)
	}
	small := h3Open(t, conn)
	small.end(h3Get(t, "HEAD"))
	small.mustHear()
	for _, r := range waiting {
		if a := r.mustHear(); len(a.body) != 3000 {
			t.Errorf("got %d bytes", len(a.body))
		}
	}
}

// TestH3Drain: GOAWAY, then the exchanges under way end, then the connections.
func TestH3Drain(t *testing.T) {
	t.Parallel()
	reached, release := make(chan struct{}), make(chan struct{})
	h := build(t, houseOptions{secure: true, drain: patience, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
		if x.Req.Method == "PUT" {
			reached <- struct{}{}
			<-release
		}
		reply(w, 200, "ok")
	})})
	idle, busy := h3Dial(t, h.address), h3Dial(t, h.address)
	h3Ask(t, idle)
	h3Ask(t, busy)
	slow := h3Open(t, busy)
	slow.end(h3Get(t, "PUT"))
	<-reached
	h.Apply(nil)
	if id := h3GoAway(t, busy); id != 8 {
		t.Errorf("GOAWAY tells of stream %d, want 8", id)
	}
	late := h3Open(t, busy)
	_, _ = io.WriteString(late, h3Get(t, "GET"))
	if a, err := late.hear(); a.status != 0 {
		t.Errorf("a request after GOAWAY got %+v", a)
	} else if code, connection := h3Code(err); code != h3.RequestRejected || connection {
		t.Errorf("a request after GOAWAY was refused with %v", err)
	}
	h3WantEnd(t, idle, h3.NoError)
	if _, err := h3Connect(t, h.address); err == nil {
		t.Error("a new connection was taken")
	}
	close(release)
	if a := slow.mustHear(); a.body != "ok" {
		t.Errorf("got %+v", a)
	}
	h3WantEnd(t, busy, h3.NoError)
	if key := <-h.closed; key != h.bind.Key() {
		t.Errorf("%s is said to be closed", key)
	}
	if n := h.count(exchange.HTTP3); n != 0 {
		t.Errorf("%d connections are counted at the end", n)
	}
}

// h3GoAway waits for GOAWAY on the server's control stream and returns its stream.
func h3GoAway(t testing.TB, conn *quic.Conn) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	str, err := conn.AcceptUniStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = str.SetReadDeadline(time.Now().Add(patience))
	r := h3Request{t: t, in: quicReader{str}}
	if kind, err := r.in.ReadByte(); kind != 0 || err != nil {
		t.Fatal(kind, err)
	}
	for {
		kind, payload, err := r.frame()
		if err != nil {
			t.Fatal(err)
		}
		if kind == 7 {
			id, _ := h3.Varint(payload)
			return id
		}
	}
}

type quicReader struct{ *quic.ReceiveStream }

func (r quicReader) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	return b[0], err
}

// TestH3DrainCuts: what does not end by itself is cut when the time is over.
func TestH3DrainCuts(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{})
	ended := make(chan *exchange.Fault, 1)
	h := build(t, houseOptions{secure: true, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
		reached <- struct{}{}
		switch x.Req.Method {
		case "PUT":
			_, _ = io.Copy(io.Discard, x.ReqBody)
		case "CONNECT":
			h3Tunneled(x, w)
		default:
			<-x.Life.Done()
			ended <- x.Life.Fault()
		}
		w.Abort()
	})})
	connect := h3Headers(t, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "x.test", ":path", "/")
	for _, request := range []string{h3Get(t, "GET"), h3Get(t, "PUT"), connect} {
		h3Open(t, h3Dial(t, h.address)).say(request)
		<-reached
	}
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if err := h.Shutdown(ctx); err == nil {
		t.Error("Shutdown says that all was drained")
	}
	if fault := <-ended; fault == nil || fault.Kind != exchange.ClientAborted {
		t.Errorf("the exchange ended with %v", fault)
	}
}

// h3Tunneled accepts a tunnel and sends back what comes, to the end of it.
func h3Tunneled(x *exchange.Exchange, w exchange.Responder) {
	if x.Req.Protocol != "websocket" {
		reply(w, 403, "no")
		return
	}
	resp := exchange.Response{Status: 101}
	resp.Fields.Add("X-From", "handler")
	if w.Respond(&resp, -1) != nil {
		return
	}
	stream, err := w.Tunnel()
	if err != nil {
		return
	}
	if _, err := io.Copy(stream, struct{ io.Reader }{stream}); err == nil {
		_, _ = io.WriteString(stream, "bye")
		_ = stream.CloseWrite()
	}
	_ = stream.Close()
}

func TestH3Tunnel(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, limits: Limits{BodyIdleTimeout: soon}, handler: serve(h3Tunneled)})
	conn := h3Dial(t, h.address)
	connect := h3Headers(t, ":method", "CONNECT", ":protocol", "WebSocket", ":scheme", "https", ":authority", "x.test", ":path", "/")
	open := func(t *testing.T) *h3Request {
		r := h3Open(t, conn)
		r.say(connect)
		kind, payload, err := r.frame()
		if err != nil || kind != 1 {
			t.Fatal(kind, err)
		}
		fields, err := h3Fields(payload)
		if err != nil || len(fields) < 2 || fields[0].Value != "200" || fields[1].Name != "x-from" {
			t.Fatalf("got %v, %v", fields, err)
		}
		return r
	}
	t.Run("both ways", func(t *testing.T) {
		r := open(t)
		wait := time.NewTimer(3 * soon) // no limit ends a tunnel
		<-wait.C
		for _, text := range []string{"hello", strings.Repeat("x", 100_000)} {
			r.say(h3Data(text))
			got := ""
			for len(got) < len(text) {
				kind, payload, err := r.frame()
				if err != nil || kind != 0 {
					t.Fatal(kind, err)
				}
				got += string(payload)
			}
			if got != text {
				t.Errorf("got %.100q", got)
			}
		}
		_ = r.Close()
		if _, payload, err := r.frame(); err != nil || string(payload) != "bye" {
			t.Errorf("got %q, %v", payload, err)
		}
		if _, _, err := r.frame(); err != io.EOF {
			t.Errorf("the tunnel ends with %v", err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		r := open(t)
		r.CancelWrite(1)
		_, _, err := r.frame()
		if code, connection := h3Code(err); code != h3.ConnectError || connection {
			t.Errorf("got %v", err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		r := h3Open(t, conn)
		r.end(h3Headers(t, ":method", "CONNECT", ":protocol", "chat", ":scheme", "https", ":authority", "x.test", ":path", "/"))
		if a := r.mustHear(); a.status != 403 || a.body != "no" || a.get("content-length") != "2" {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("trailers within", func(t *testing.T) {
		other := h3Dial(t, h.address)
		r := h3Open(t, other)
		r.say(connect, h3Headers(t, "x-a", "1"))
		h3WantEnd(t, other, h3.FrameUnexpected)
	})
}

// TestH3MaxConnections: the newest is the one refused.
func TestH3MaxConnections(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(echo), limits: Limits{MaxConnections: 2}})
	first, second := h3Dial(t, h.address), h3Dial(t, h.address)
	h3Ask(t, first)
	h3Ask(t, second)
	if _, err := h3Connect(t, h.address); err == nil {
		t.Error("a connection over the limit was taken")
	} else if refused, ok := errors.AsType[*quic.TransportError](err); !ok || refused.ErrorCode != quic.ConnectionRefused {
		t.Errorf("it was refused with %v", err)
	}
	h3Ask(t, first)
	_ = second.CloseWithError(0x100, "")
	h3Eventually(t, "a connection that ended makes no room", func() bool {
		conn, err := h3Connect(t, h.address)
		if err == nil {
			_ = conn.CloseWithError(0x100, "")
		}
		return err == nil
	})
}

// TestH3Retry: with many handshakes under way a client proves its address first.
func TestH3Retry(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(echo)})
	server := func() *http3Server {
		h.Server.mu.Lock()
		defer h.Server.mu.Unlock()
		return h.binds[h.bind.place()].(*bind).http3
	}()
	if server.doubts(&net.UDPAddr{}) {
		t.Error("an idle server doubts its clients")
	}
	server.handshakes.Add(retryFrom)
	if !server.doubts(&net.UDPAddr{}) {
		t.Error("a busy server does not doubt its clients")
	}
	h3Ask(t, h3Dial(t, h.address))
	h3Eventually(t, "a handshake that is done counts", func() bool { return server.handshakes.Load() == retryFrom })
	server.handshakes.Add(-retryFrom)
}

// TestH3NoEarlyData: a session ticket does not allow requests before the handshake is done.
func TestH3NoEarlyData(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(echo)})
	config := (&http3Server{bind: &bind{options: &h.Server.options}}).config()
	if config.Allow0RTT {
		t.Fatal("early data is allowed")
	}
}

// TestH3Priority: both ways of saying how urgent a request is are taken, also when they say nothing useful.
func TestH3Priority(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(echo)})
	conn, err := h3Connect(t, h.address)
	if err != nil {
		t.Fatal(err)
	}
	update := func(id byte, value string) string {
		return string(h3.AppendVarint(nil, 0xf0700)) + string([]byte{byte(1 + len(value)), id}) + value
	}
	h3Uni(t, conn, "\x00\x04\x00"+update(0, "u=1, i")+update(40, "u=7"))
	for _, value := range []string{"u=0", "u=7, i", "nonsense", ""} {
		r := h3Open(t, conn)
		r.end(h3Get(t, "GET", "priority", value))
		if a := r.mustHear(); a.status != 200 || !bytes.Contains([]byte(a.body), []byte("priority="+value)) {
			t.Errorf("got %+v", a)
		}
	}
}
