package hostile

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"gatehouse.dev/gatehouse/test/harness"
)

// excessive is HTTP/3's way to say ENHANCE_YOUR_CALM.
func excessive() []end { return []end{{over: true, code: h3ExcessiveLoad}} }

// attacker3 is a client of HTTP/3 that keeps to no rule of it; to those of QUIC its library keeps.
type attacker3 struct {
	*quic.Conn
	control *quic.SendStream
}

// attack3 connects. Its receive windows are as small as they can be when blind.
func (f *floodBed) attack3(t testing.TB, blind bool) *attacker3 {
	tlsConf := harness.ClientTLS(harness.DefaultHost)
	tlsConf.NextProtos = []string{"h3"}
	config := &quic.Config{MaxIdleTimeout: harness.Patience}
	if blind {
		config.InitialStreamReceiveWindow, config.MaxStreamReceiveWindow = 256, 256
	}
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, f.Address(), tlsConf, config)
	if err != nil {
		t.Error(err)
		return nil
	}
	control, err := conn.OpenUniStream()
	if err != nil {
		t.Error(err)
		return nil
	}
	_, _ = control.Write([]byte(settled))
	return &attacker3{conn, control}
}

// stream opens a request's stream, waiting for leave to; nil when the connection is over.
func (a *attacker3) stream() *quic.Stream {
	str, err := a.OpenStreamSync(a.Context())
	if err != nil {
		return nil
	}
	return str
}

// ended returns how the connection ended. One that the gateway keeps is kept until the flood is over.
func (a *attacker3) ended(f *floodBed) end {
	select {
	case <-a.Context().Done():
		code, _ := closed(a.Conn)
		return end{true, code}
	case <-time.After(time.Second): // it may well go on
	}
	a.closeAfter(f)
	return end{}
}

func (a *attacker3) closeAfter(f *floodBed) {
	go func() {
		<-f.held
		_ = a.CloseWithError(0x100, "")
	}()
}

// most3 is how often a request of an attack is repeated when nobody stops it.
const most3 = 3000

// repeated3 calls send, until it returns false or was called most3 times.
func repeated3(send func(a *attacker3) bool) func(testing.TB, *floodBed) end {
	return func(t testing.TB, f *floodBed) end {
		a := f.attack3(t, false)
		if a == nil {
			return end{}
		}
		for range most3 {
			if a.Context().Err() != nil || !send(a) {
				break
			}
		}
		return a.ended(f)
	}
}

// onControl sends bytes on the control stream again and again.
func onControl(bytes string) func(testing.TB, *floodBed) end {
	return repeated3(func(a *attacker3) bool {
		_, err := a.control.Write([]byte(bytes))
		return err == nil
	})
}

// onUni opens a unidirectional stream with begin and sends bytes on it again and again.
func onUni(begin, bytes string) func(testing.TB, *floodBed) end {
	return func(t testing.TB, f *floodBed) end {
		a := f.attack3(t, false)
		if a == nil {
			return end{}
		}
		if str, err := a.OpenUniStream(); err == nil {
			_, err = str.Write([]byte(begin))
			for i := 0; err == nil && i < most; i++ {
				_, err = str.Write([]byte(bytes))
			}
		}
		return a.ended(f)
	}
}

// onRequest opens one request with begin and sends bytes on it again and again.
func onRequest(begin, bytes string) func(testing.TB, *floodBed) end {
	return func(t testing.TB, f *floodBed) end {
		a := f.attack3(t, false)
		if a == nil {
			return end{}
		}
		if str := a.stream(); str != nil {
			_, err := str.Write([]byte(begin))
			for i := 0; err == nil && i < most; i++ {
				_, err = str.Write([]byte(bytes))
			}
		}
		return a.ended(f)
	}
}

// eachRequest opens request after request: bytes, and then end.
func eachRequest(bytes string, end func(str *quic.Stream)) func(testing.TB, *floodBed) end {
	return repeated3(func(a *attacker3) bool {
		str := a.stream()
		if str == nil {
			return false
		}
		_, _ = str.Write([]byte(bytes))
		end(str)
		return true
	})
}

func floodsH3() map[string]flood {
	hang := headers(request(harness.H3, ":path", "/hang"))
	post := headers(request(harness.H3, ":method", "POST"))
	static := func(times int) string {
		return string(harness.FieldBlock(request(harness.H3))) + strings.Repeat("\xc5", times)
	} // cookie, empty
	bomb := frame(harness.H3Headers, static(60_000))
	whole := func(str *quic.Stream) { _ = str.Close(); str.CancelRead(0x10c) }
	reset := func(str *quic.Stream) { str.CancelWrite(0x10c); str.CancelRead(0x10c) }
	all := map[string]flood{
		"resets by the client":              {attack: eachRequest(hang, reset), cut: excessive(), served: 1000},
		"answers that are not wanted":       {attack: eachRequest(hang, whole), cut: excessive(), served: 1000},
		"requests that end before the head": {attack: eachRequest("\x01\x40", whole), cut: []end{{true, h3FrameError}}},
		"requests of nothing":               {attack: eachRequest("", whole), cut: excessive()},
		"malformed requests":                {attack: eachRequest(headers(request(harness.H3, "connection", "close")), whole), cut: excessive()},
		"a bomb in every request":           {attack: eachRequest(bomb, whole), cut: excessive()},
		"a bomb in every trailers":          {attack: eachRequest(post+frame(harness.H3Headers, "\x00\x00"+strings.Repeat("\xc5", 60_000)), whole), cut: excessive()},
		"a head of 2^60 bytes":              {attack: onRequest("\x01\xd0\x00\x00\x00\x00\x00\x00\x00", "\xc5")},
		"unknown frames of a request":       {attack: onRequest(post, frame(0x21, "")), cut: excessive()},
		"unknown frames before a request":   {attack: onRequest("", frame(0x21, ""))},
		"a large unknown frame":             {attack: onRequest(post+"\x21\xd0\x00\x00\x00\x00\x00\x00\x00", strings.Repeat("x", 100))},
		"empty DATA":                        {attack: onRequest(post, frame(harness.H3Data, "")), cut: excessive()},
		"unknown control frames":            {attack: onControl(frame(0x21, "")), cut: excessive()},
		"PRIORITY_UPDATE":                   {attack: onControl(frame(0xf0700, "\x00u=1")), cut: excessive()},
		"GOAWAY":                            {attack: onControl(frame(0x7, "\x00")), cut: excessive()},
		"MAX_PUSH_ID":                       {attack: onControl(frame(0xd, "\x00")), cut: excessive()},
		"cancelled streams for QPACK":       {attack: onUni("\x03", "\x41"), cut: excessive()},
		"table capacities for QPACK":        {attack: onUni("\x02", "\x20"), cut: append(excessive(), end{true, qpackEncoder})},
		"streams of unknown types": {cut: excessive(), attack: repeated3(func(a *attacker3) bool {
			str, err := a.OpenUniStreamSync(a.Context())
			if err != nil {
				return false
			}
			_, _ = str.Write([]byte("\x21"))
			_ = str.Close()
			return true
		})},
		"answers that are not read": {attack: blindReads, heap: 48, givesUp: true},
	}
	for name, f := range all {
		f.down = harness.H3
		all[name] = f
	}
	return all
}

// blindReads asks for much with no window to take it.
func blindReads(t testing.TB, f *floodBed) end {
	a := f.attack3(t, true)
	if a == nil {
		return end{}
	}
	const streams = 100
	for range streams {
		if str := a.stream(); str != nil {
			_, _ = str.Write([]byte(headers(request(harness.H3, ":path", "/big"))))
			_ = str.Close()
		}
	}
	if !f.wait(streams, false) {
		t.Error("the requests do not come to the origin")
	}
	a.closeAfter(f)
	return end{}
}
