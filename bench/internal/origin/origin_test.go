package origin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func start(t *testing.T) *Origin {
	t.Helper()
	o, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

func TestHTTP(t *testing.T) {
	o := start(t)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	tests := []struct {
		name, path, version string
		upload              io.Reader
		size                int
		body                string
	}{
		{name: "small", path: "/b/130", size: 130},
		{name: "small again", path: "/b/130", size: 130},
		{name: "empty", path: "/b/0"},
		{name: "just one write", path: "/b/262144", size: 262144},
		{name: "several writes", path: "/b/3000001", size: 3000001},
		{name: "length upload", path: "/upload", upload: bytes.NewReader(make([]byte, 1<<20)), body: "1048576"},
		{name: "chunked upload", path: "/upload", upload: io.MultiReader(bytes.NewReader(make([]byte, 300_000)), strings.NewReader("abc")), body: "300003"},
		{name: "no upload", path: "/upload"},
		{name: "version", path: "/version", version: "v7", body: "v7"},
		{name: "small after all", path: "/b/7", size: 7},
	}
	for _, tt := range tests { // in this order, over one connection
		method := http.MethodGet
		if tt.upload != nil {
			method = http.MethodPost
		}
		request, err := http.NewRequest(method, "http://"+o.HTTP+tt.path, tt.upload)
		if err != nil {
			t.Fatal(err)
		}
		if tt.version != "" {
			request.Header.Set("X-Version", tt.version)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v %s", tt.name, err, response.Status)
		}
		if tt.size > 0 {
			tt.body = strings.Repeat("x", tt.size)
		}
		if string(body) != tt.body {
			t.Errorf("%s: %d bytes, want %d: %.50q", tt.name, len(body), len(tt.body), body)
		}
	}
}

func TestParseHeadRefuses(t *testing.T) {
	for name, head := range map[string]string{
		"no target":  "GET\r\n",
		"no colon":   "GET / HTTP/1.1\r\nHost\r\n",
		"bad length": "GET / HTTP/1.1\r\nContent-Length: x\r\n",
	} {
		if r, err := parseHead([]byte(head)); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestWebSocket lets a full implementation of the protocol talk to the echo.
func TestWebSocket(t *testing.T) {
	o := start(t)
	ws, _, err := websocket.Dial(t.Context(), "ws://"+o.HTTP+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(-1)
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 300_000} {
		message := bytes.Repeat([]byte("m"), size)
		if err := ws.Write(t.Context(), websocket.MessageBinary, message); err != nil {
			t.Fatal(err)
		}
		kind, got, err := ws.Read(t.Context())
		if err != nil || kind != websocket.MessageBinary || !bytes.Equal(got, message) {
			t.Fatalf("%d bytes came back as %d, %v, %v", size, len(got), kind, err)
		}
	}
	read := ws.CloseRead(t.Context()) // somebody must read for the pong to arrive
	if err := ws.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := ws.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Error(err)
	}
	<-read.Done()
}

// TestGRPC lets a full implementation of gRPC talk to the echo.
func TestGRPC(t *testing.T) {
	o := start(t)
	conn, err := grpc.NewClient(o.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	big := strings.Repeat("b", 3_000_000) // over every initial window, both ways
	for _, text := range []string{"", "hello", big} {
		var got wrapperspb.StringValue
		if err := conn.Invoke(t.Context(), "/bench.Echo/Unary", wrapperspb.String(text), &got); err != nil || got.Value != text {
			t.Fatalf("%d bytes came back as %d, %v", len(text), len(got.Value), err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/bench.Echo/Stream")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		want := fmt.Sprintf("message %d %s", i, big[:i*1000])
		if err := stream.SendMsg(wrapperspb.String(want)); err != nil {
			t.Fatal(err)
		}
		var got wrapperspb.StringValue
		if err := stream.RecvMsg(&got); err != nil || got.Value != want {
			t.Fatalf("message %d: %d bytes, %v", i, len(got.Value), err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&wrapperspb.StringValue{}); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}
