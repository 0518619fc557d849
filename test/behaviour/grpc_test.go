package behaviour

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"gatehouse.dev/gatehouse/test/harness"
)

// grpcOrigin implements all four kinds of call of the gRPC interoperability service.
type grpcOrigin struct {
	grpc_testing.UnimplementedTestServiceServer
}

func echo(ctx context.Context, set func(metadata.MD) error) {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		_ = set(metadata.MD{"x-echo": md.Get("x-in"), "x-bin-bin": md.Get("x-bin-bin")})
	}
}

func (grpcOrigin) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	echo(ctx, func(md metadata.MD) error { return grpc.SetHeader(ctx, md) })
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t"))
	if s := in.GetResponseStatus(); s != nil {
		return nil, status.Error(codes.Code(s.GetCode()), s.GetMessage())
	}
	if in.GetResponseSize() < 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &grpc_testing.SimpleResponse{Payload: in.GetPayload()}, nil
}

func (grpcOrigin) StreamingOutputCall(in *grpc_testing.StreamingOutputCallRequest, out grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	for _, p := range in.GetResponseParameters() {
		if err := out.Send(&grpc_testing.StreamingOutputCallResponse{Payload: payload(int(p.GetSize()))}); err != nil {
			return err
		}
	}
	out.SetTrailer(metadata.Pairs("x-trailer", "t"))
	return status.Error(codes.DataLoss, "after all: 100% \u2713")
}

func (grpcOrigin) StreamingInputCall(in grpc.ClientStreamingServer[grpc_testing.StreamingInputCallRequest, grpc_testing.StreamingInputCallResponse]) error {
	var size int32
	for {
		m, err := in.Recv()
		if err == io.EOF {
			return in.SendAndClose(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: size})
		}
		if err != nil {
			return err
		}
		size += int32(len(m.GetPayload().GetBody()))
	}
}

func (grpcOrigin) FullDuplexCall(s grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	for {
		m, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: m.GetPayload()}); err != nil {
			return err
		}
	}
}

func payload(n int) *grpc_testing.Payload { return &grpc_testing.Payload{Body: pattern(n)} }

// newGRPC starts the origin behind a gateway and returns a client through it.
func newGRPC(t *testing.T, c harness.Combo) grpc_testing.TestServiceClient {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var opts []grpc.ServerOption
	if c.Up == harness.UpH2TLS {
		opts = append(opts, grpc.Creds(credentials.NewTLS(harness.OriginTLS())))
	}
	server := grpc.NewServer(opts...)
	grpc_testing.RegisterTestServiceServer(server, grpcOrigin{})
	go server.Serve(ln)
	t.Cleanup(server.Stop)
	cluster := harness.Cluster("grpc", c.Up, netip.MustParseAddrPort(ln.Addr().String()))
	env := harness.New(t, c, nil, backend(cluster))

	creds := insecure.NewCredentials()
	if c.Down == harness.H2 {
		creds = credentials.NewTLS(&tls.Config{RootCAs: harness.ClientTLS("").RootCAs, ServerName: harness.DefaultHost})
	}
	conn, err := grpc.NewClient("passthrough:///"+env.Address(), grpc.WithTransportCredentials(creds), grpc.WithAuthority(harness.DefaultHost))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return grpc_testing.NewTestServiceClient(conn)
}

func TestGRPC(t *testing.T) {
	for _, down := range []harness.Down{harness.H2, harness.H2C} {
		for _, up := range []harness.Up{harness.UpH2C, harness.UpH2TLS} {
			c := harness.Combo{Down: down, Up: up}
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				client := newGRPC(t, c)
				ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
				defer cancel()
				t.Run("unary", func(t *testing.T) { unary(ctx, t, client) })
				t.Run("errors", func(t *testing.T) { grpcErrors(ctx, t, client) })
				t.Run("server streaming", func(t *testing.T) { serverStreaming(ctx, t, client) })
				t.Run("client streaming", func(t *testing.T) { clientStreaming(ctx, t, client) })
				t.Run("full duplex", func(t *testing.T) { fullDuplex(ctx, t, client) })
			})
		}
	}
}

func unary(ctx context.Context, t *testing.T, client grpc_testing.TestServiceClient) {
	ctx = metadata.AppendToOutgoingContext(ctx, "x-in", "1", "x-in", "2", "x-bin-bin", "\x00\xff")
	for _, size := range []int{0, 1, 1 << 20} {
		var header, trailer metadata.MD
		out, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: payload(size)}, grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "unary", out.GetPayload().GetBody(), pattern(size))
		if got := fmt.Sprint(header.Get("x-echo"), header.Get("x-bin-bin"), trailer.Get("x-trailer")); got != "[1 2] [\x00\xff] [t]" {
			t.Errorf("got the metadata %q", got)
		}
	}
}

func grpcErrors(ctx context.Context, t *testing.T, client grpc_testing.TestServiceClient) {
	var trailer metadata.MD
	_, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{
		Code: int32(codes.FailedPrecondition), Message: "no: 100% \u2713\n",
	}}, grpc.Trailer(&trailer))
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "no: 100% \u2713\n" || len(trailer.Get("x-trailer")) != 1 {
		t.Errorf("got %v with trailer %v", err, trailer)
	}
	if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a trailers-only answer: got %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := client.UnaryCall(short, &grpc_testing.SimpleRequest{ResponseSize: -1}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a deadline: got %v", err)
	}
}

func serverStreaming(ctx context.Context, t *testing.T, client grpc_testing.TestServiceClient) {
	in := &grpc_testing.StreamingOutputCallRequest{}
	sizes := []int32{0, 1, 70_000, 5}
	for _, size := range sizes {
		in.ResponseParameters = append(in.ResponseParameters, &grpc_testing.ResponseParameters{Size: size})
	}
	s, err := client.StreamingOutputCall(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range sizes {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "message", m.GetPayload().GetBody(), pattern(int(size)))
	}
	_, err = s.Recv()
	if got := status.Convert(err); got.Code() != codes.DataLoss || !strings.HasPrefix(got.Message(), "after all: 100% ") || len(s.Trailer().Get("x-trailer")) != 1 {
		t.Errorf("got %v with trailer %v", err, s.Trailer())
	}
}

func clientStreaming(ctx context.Context, t *testing.T, client grpc_testing.TestServiceClient) {
	s, err := client.StreamingInputCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 10, 70_000} {
		if err := s.Send(&grpc_testing.StreamingInputCallRequest{Payload: payload(size)}); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := s.CloseAndRecv(); err != nil || out.GetAggregatedPayloadSize() != 70_010 {
		t.Errorf("got %v, %v", out, err)
	}
}

func fullDuplex(ctx context.Context, t *testing.T, client grpc_testing.TestServiceClient) {
	s, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 0, 70_000, 3} { // each answer comes before the next question
		if err := s.Send(&grpc_testing.StreamingOutputCallRequest{Payload: payload(size)}); err != nil {
			t.Fatal(err)
		}
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "echo", m.GetPayload().GetBody(), pattern(size))
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("got %v at the end, want EOF", err)
	}
}
