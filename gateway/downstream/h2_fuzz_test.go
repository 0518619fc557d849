package downstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h2Script makes frames of fuzzed bytes: frames that are well-formed often enough to get far into the server.
//
//	1 byte  what: the kind of frame; beyond the known ones the rest goes out as it is
//	1 byte  its flags
//	1 byte  its stream: 0 to 15
//	1 byte  n, and n bytes of payload; of HEADERS the first says which of h2Blocks stands in its place
func h2Script(script []byte) []byte {
	var out bytes.Buffer
	f := http2.NewFramer(&out, nil)
	f.AllowIllegalWrites = true
	out.WriteString(http2.ClientPreface)
	_ = f.WriteSettings()
	for len(script) >= 4 {
		what, flags, stream, n := script[0], http2.Flags(script[1]), uint32(script[2]%16), int(script[3])
		script = script[4:]
		if what > 0x12 {
			out.Write(script)
			break
		}
		payload := script[:min(n, len(script))]
		script = script[len(payload):]
		if what == byte(http2.FrameHeaders) && len(payload) > 0 && int(payload[0]) < len(h2Blocks) {
			flags &^= http2.FlagHeadersPadded | http2.FlagHeadersPriority
			payload = h2Blocks[payload[0]]
		}
		_ = f.WriteRawFrame(http2.FrameType(what), flags, stream, payload)
	}
	return out.Bytes()
}

// h2Blocks are header blocks.
var h2Blocks = func() (blocks [][]byte) {
	for _, fields := range [][]hpack.HeaderField{
		h2fields(), h2fields(":method", "POST"), h2fields(":method", "POST", "content-length", "3"), h2fields(":path", "/hold"),
		h2fields(":path", "/large"), h2fields(":method", "CONNECT", ":protocol", "websocket"), h2fields(":method", "POST", "expect", "100-continue"),
		{{Name: "x-sum", Value: "7"}}, h2fields("priority", "u=1, i"), h2fields("x-a", strings.Repeat("a", 5000)), h2fields(":method", "HEAD"),
	} {
		blocks = append(blocks, h2Block(fields))
	}
	return blocks
}()

// h2Block makes a header block that neither needs the table nor changes it.
func h2Block(fields []hpack.HeaderField) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	enc.SetMaxDynamicTableSize(0)
	for _, f := range fields {
		_ = enc.WriteField(f)
	}
	return b.Bytes()
}

func h2FuzzHandler(x *exchange.Exchange, w exchange.Responder) {
	switch {
	case x.Req.Target == "/hold":
		<-x.Life.Done()
		w.Abort()
	case x.Req.Target == "/large":
		reply(w, 200, strings.Repeat("l", 200_000))
	case x.Fault == nil && x.Req.Protocol != "":
		if w.Respond(&exchange.Response{Status: 101}, -1) != nil {
			return
		}
		s, err := w.Tunnel()
		if err != nil {
			return
		}
		_, _ = io.Copy(s, s)
		_ = s.CloseWrite()
		_ = s.Close()
	default:
		echo(x, w)
	}
}

// FuzzSession: whatever a client sends, the server answers in frames, ends the connection when the client ends its side, and has nothing
// left over then.
func FuzzSession(f *testing.F) {
	end, ends := byte(1), byte(5) // END_STREAM, with END_HEADERS
	f.Add([]byte{1, ends, 1, 1, 0, 1, ends, 3, 1, 4, 8, 0, 3, 4, 0, 0, 0, 100})
	f.Add([]byte{1, 4, 1, 1, 1, 0, 0, 1, 3, 'a', 'b', 'c', 0, end, 1, 0, 1, 4, 3, 1, 2, 0, end, 3, 3, 'a', 'b', 'c'})
	f.Add([]byte{1, 4, 1, 1, 3, 3, 0, 1, 4, 0, 0, 0, 8, 1, 4, 3, 1, 6, 1, ends, 3, 1, 7})
	f.Add([]byte{1, 4, 1, 1, 5, 0, 0, 1, 4, 'p', 'i', 'n', 'g', 0, end, 1, 0})
	f.Add([]byte{1, 0, 1, 1, 0, 9, 0, 1, 1, 0x20, 9, 4, 1, 0, 6, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 7, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{4, 0, 0, 6, 0, 4, 0, 0, 0, 0, 1, ends, 1, 1, 4, 4, 0, 0, 6, 0, 4, 0, 0, 1, 0, 0x10, 0, 0, 7, 0, 0, 0, 1, 'u', '=', '1'})
	f.Add([]byte{0xff, 0, 0, 0, 0, 0, 1, 0, 5, 0, 0, 0, 1, 0x82})
	h := build(f, houseOptions{handler: serve(h2FuzzHandler), limits: Limits{
		MaxHeaderBytes: 8 << 10, MaxStreams: 4, MaxBodyBytes: 500, HeaderTimeout: soon, BodyIdleTimeout: soon, IdleTimeout: soon,
	}})
	f.Fuzz(func(t *testing.T, script []byte) {
		conn, err := net.Dial("tcp", h.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		go func() {
			_, _ = conn.Write(h2Script(script))
			if tcp, ok := conn.(*net.TCPConn); ok && len(script)%8 != 7 { // else the limits end it
				_ = tcp.CloseWrite()
			}
		}()
		if err := readFrames(conn); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		for began := time.Now(); h.count(exchange.HTTP2) > 0; time.Sleep(time.Millisecond) {
			if time.Since(began) > patience {
				t.Fatal("the connection is still counted")
			}
		}
	})
}

// readFrames reads to the end of the connection and holds that whole frames come, SETTINGS first.
func readFrames(conn net.Conn) error {
	first := true
	for {
		var head [9]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				return errors.New("the connection goes on")
			}
			return nil // its end, or a reset
		}
		if first && head[3] != byte(http2.FrameSettings) {
			return errors.New("the first frame is not SETTINGS")
		}
		first = false
		size := binary.BigEndian.Uint32(append([]byte{0}, head[:3]...))
		if size > 16384 {
			return errors.New("a frame is larger than allowed")
		}
		if _, err := io.CopyN(io.Discard, conn, int64(size)); err != nil {
			continue // cut within: the next read tells
		}
	}
}
