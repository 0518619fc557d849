package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// wsMessage is a binary message of n bytes as the client's frame: masked (RFC 6455 5.2, 5.3). The mask protects intermediaries from what a
// browser's script may choose; here it is a constant.
func wsMessage(n int) []byte {
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	frame := []byte{0x82}
	if n < 126 {
		frame = append(frame, 0x80|byte(n))
	} else {
		frame = binary.BigEndian.AppendUint16(append(frame, 0x80|126), uint16(n))
	}
	frame = append(frame, mask[:]...)
	for i := range n {
		frame = append(frame, byte(i)^mask[i%4])
	}
	return frame
}

// dialWebSocket connects and upgrades.
func dialWebSocket(address string) (*h1Conn, error) {
	conn, err := dial(address, "")
	if err != nil {
		return nil, err
	}
	c := newH1Conn(conn)
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", address)
	status := 0
	if err == nil {
		status, _, err = c.readHead()
	}
	if err == nil && status != 101 {
		err = fmt.Errorf("the upgrade was answered with status %d", status)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return c, nil
}

// wsEcho sends a message and reads it back.
func wsEcho(c *h1Conn, frame, buf []byte, want int) error {
	if _, err := c.conn.Write(frame); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, buf[:2]); err != nil {
		return err
	}
	size := int(buf[1])
	if size == 126 {
		if _, err := io.ReadFull(c, buf[2:4]); err != nil {
			return err
		}
		size = int(binary.BigEndian.Uint16(buf[2:]))
	}
	if buf[0] != 0x82 || size != want {
		return errors.New("the echo is another frame than what was sent")
	}
	_, err := io.ReadFull(c, buf[:size])
	if err == nil && buf[size-1] != byte(size-1) {
		err = errors.New("the echo is other bytes than what was sent")
	}
	return err
}

// wsWorker keeps one connection busy with echoes of messages of n bytes.
func wsWorker(t *tally, address string, n int) {
	frame, buf := wsMessage(n), make([]byte, n+14)
	for !t.run.over() && t.failures < mostFailures {
		c, err := dialWebSocket(address)
		if err != nil {
			t.ended(0, err)
			continue
		}
		t.run.keep(c.conn)
		for err == nil && !t.run.over() {
			began := time.Now()
			err = wsEcho(c, frame, buf, n)
			t.ended(time.Since(began), err)
			t.carried(2 * n)
		}
		t.run.drop(c.conn)
	}
}
