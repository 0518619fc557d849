package hostile

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/test/harness"
)

// TestUnreadBody has an origin answer before the client has sent its body. The client then stalls beyond what the server waits, and goes
// on with bytes that are body to it and would be a request to a server that forgot where it was.
func TestUnreadBody(t *testing.T) {
	t.Parallel()
	for name, framing := range map[string]string{
		"length":  "Content-Length: 1000\r\n\r\nhello",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			origin := harness.NewRecorder(t, func(c *harness.RecordedConn) {
				if _, err := c.ReadHead(); err == nil {
					c.Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					_, _ = io.Copy(io.Discard, c) // what comes is only recorded
				}
			})
			env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, nil, func(o *harness.EnvOptions) {
				o.Backend = harness.Cluster("recorder", harness.UpH1, origin.Addr)
			})
			conn, err := net.Dial("tcp", env.Address())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, post+framing); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 0, 1024)
			for !strings.HasSuffix(string(answer), "ok") {
				n, err := conn.Read(answer[len(answer):cap(answer)])
				if err != nil {
					t.Fatalf("%v after %q", err, answer)
				}
				answer = answer[:len(answer)+n]
			}
			if !strings.Contains(strings.ToLower(string(answer)), "\r\nconnection: close\r\n") {
				t.Errorf("the answer does not say that the connection closes: %q", answer)
			}
			// The gateway ends the connection by itself: nothing can follow.
			rest, _ := io.ReadAll(conn)
			_, _ = io.WriteString(conn, smuggled)
			more, _ := io.ReadAll(conn)
			if len(rest)+len(more) > 0 {
				t.Errorf("another answer: %q", string(rest)+string(more))
			}
			for _, c := range origin.Conns() {
				if strings.HasPrefix(c.Bytes(), "GET /smuggled") {
					t.Errorf("the body was taken for a request: %q", c.Bytes())
				}
			}
		})
	}
}
