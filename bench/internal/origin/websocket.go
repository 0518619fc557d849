package origin

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Frame opcodes (RFC 6455 5.2).
const (
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// mostFrame bounds a message that the echo takes.
const mostFrame = 1 << 20

// echoFrames completes the handshake and sends every frame back, unmasked as a server must (RFC 6455 5.1), until a close frame.
func (s *session) echoFrames(key []byte) error {
	sum := sha1.Sum(append(key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	if _, err := fmt.Fprintf(s.conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:])); err != nil {
		return err
	}
	var out []byte
	for {
		var head [14]byte
		if _, err := io.ReadFull(s, head[:2]); err != nil {
			return err
		}
		size, extra := uint64(head[1]&0x7f), 4
		switch size {
		case 126:
			extra += 2
		case 127:
			extra += 8
		}
		if _, err := io.ReadFull(s, head[2:2+extra]); err != nil {
			return err
		}
		switch size {
		case 126:
			size = uint64(binary.BigEndian.Uint16(head[2:]))
		case 127:
			size = binary.BigEndian.Uint64(head[2:])
		}
		if head[1]&0x80 == 0 || size > mostFrame {
			return errors.New("a frame that is not masked, or over the limit")
		}
		mask := head[2+extra-4 : 2+extra]
		if head[0]&0x0f == opPing {
			head[0] = head[0]&0xf0 | opPong
		}
		out = appendFrameHead(out[:0], head[0], size)
		at := len(out)
		out = append(out, make([]byte, size)...)
		if _, err := io.ReadFull(s, out[at:]); err != nil {
			return err
		}
		for i := range out[at:] {
			out[at+i] ^= mask[i%4]
		}
		if _, err := s.conn.Write(out); err != nil || head[0]&0x0f == opClose {
			return err
		}
	}
}

func appendFrameHead(b []byte, first byte, size uint64) []byte {
	switch {
	case size < 126:
		return append(b, first, byte(size))
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, first, 126), uint16(size))
	}
	return binary.BigEndian.AppendUint64(append(b, first, 127), size)
}
