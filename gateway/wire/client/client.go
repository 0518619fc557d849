// Package client follows the controller: the proxy's end of the transport whose other end is package wire. It receives resources, puts a
// config.Config together, hands it to whoever applies it, and answers with what came of it. It knows nothing of what a configuration does.
//
//	stream -> store (resources, versions) -> build (what did not change keeps its pointer) -> apply -> ack or nack
package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire/internal/format"
)

const (
	// firstWait and maxWait bound the wait before a new attempt. It doubles with each that fails.
	firstWait = 200 * time.Millisecond
	maxWait   = 10 * time.Second
	// keepaliveTime is after how much silence the connection is tried, keepaliveTimeout how long the answer may take.
	keepaliveTime    = 20 * time.Second
	keepaliveTimeout = 10 * time.Second
	// connectTimeout bounds TCP and TLS handshakes of one attempt.
	connectTimeout = 10 * time.Second
	// tcpTimeout bounds the TCP handshake alone. A controller that has just ended leaves an address from which nothing answers, and its
	// Service leads there until its successor has put its own in place. A new attempt finds the successor; one that waits never does,
	// because nodes send all packets of a connection to where they sent the first.
	tcpTimeout = 2 * time.Second
)

// Options are a client's settings.
type Options struct {
	// Address of the controller, "HOST:PORT".
	Address string
	// Gateway is "namespace/name" of the Gateway whose configuration is wanted. The token decides; another one's is an error.
	Gateway string
	// Proxy names this proxy in the controller's log, "namespace/pod".
	Proxy string
	// TLS returns the settings that authenticate the controller. It is asked anew for each connection.
	TLS func() (*tls.Config, error)
	// Token returns the bearer token. It is asked anew for each connection.
	Token func() (string, error)
	// Logger gets connections and refusals; nil discards them.
	Logger *slog.Logger
	// Keepalive is after how much silence the connection is tried, and how long the answer may take. Default 20 s (10 s is gRPC's least) and
	// 10 s.
	Keepalive, KeepaliveTimeout time.Duration
}

// Apply makes a configuration the running one (Engine.Apply). An error means that it is refused as a whole and the one before goes on.
type Apply func(context.Context, *config.Config) (config.Applied, error)

// Follow follows the controller until ctx ends, connecting again with backoff, and calls apply with each complete configuration, from one
// goroutine. What was applied last stays in use while the controller is away, and is not sent again when it comes back. The error is
// ctx's, or says which option is missing.
func Follow(ctx context.Context, o Options, apply Apply) error {
	switch {
	case o.Address == "":
		return errors.New("the controller's address is missing")
	case o.Gateway == "":
		return errors.New("the Gateway is missing")
	case o.TLS == nil || o.Token == nil:
		return errors.New("the controller cannot be reached without TLS settings and a token")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Keepalive, o.KeepaliveTimeout = cmp.Or(o.Keepalive, keepaliveTime), cmp.Or(o.KeepaliveTimeout, keepaliveTimeout)
	// The instance tells the controller that a new stream takes the place of the one before, which may look alive to it.
	f := &follower{options: o, apply: apply, store: newStore(), node: &core.Node{Id: o.Proxy + "#" + rand.Text(), Cluster: o.Gateway}}
	return f.run(ctx)
}

// follower is the state that outlives a connection. One goroutine uses it.
type follower struct {
	options Options
	apply   Apply
	store   *store
	node    *core.Node

	tried   *config.Config // the last that apply was called with
	refused error          // what it said
	applied config.Applied

	failures int    // attempts since a response came
	said     string // the last failure in the log, or connected
}

// connected is follower.said while there is a stream.
const connected = "connected"

func (f *follower) run(ctx context.Context) error {
	for {
		err := f.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.failures++
		wait := backoff(f.failures, mathrand.Float64())
		text := explain(err)
		switch {
		case f.said == connected && status.Code(err) == codes.Unauthenticated:
			f.options.Logger.Info("connecting to the controller with a new token", "controller", f.options.Address)
		case f.said != text:
			f.options.Logger.Warn("no connection to the controller; what runs goes on", "controller", f.options.Address, "error", text)
		}
		f.said = text
		f.options.Logger.Debug("connecting to the controller again", "wait", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// backoff returns the wait before the next attempt: doubled each time up to maxWait, of which a random half is taken off, so that many
// proxies do not come at once.
func backoff(failures int, random float64) time.Duration {
	wait := maxWait
	if doublings := failures - 1; doublings < 16 {
		wait = min(firstWait<<doublings, maxWait)
	}
	return wait - time.Duration(random*float64(wait)/2)
}

// session is one connection with one stream, until it breaks.
func (f *follower) session(ctx context.Context) error {
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the stream has told what there was to tell
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	request := &discovery.DeltaDiscoveryRequest{
		Node: f.node, TypeUrl: format.Subscription, InitialResourceVersions: f.store.versions,
	}
	for {
		// The error of a failed Send is Recv's to tell.
		if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		if f.said != connected {
			f.options.Logger.Info("connected to the controller", "controller", f.options.Address)
		}
		f.failures, f.said = 0, connected
		if request, err = f.receive(ctx, response); err != nil {
			return err
		}
	}
}

func (f *follower) dial() (*grpc.ClientConn, error) {
	settings, err := f.options.TLS()
	if err != nil {
		return nil, err
	}
	// One attempt is one connection: waiting and trying again is Follow's, with the token and CAs of then.
	return grpc.NewClient("passthrough:///"+f.options.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(settings)),
		grpc.WithPerRPCCredentials(token(f.options.Token)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: f.options.Keepalive, Timeout: f.options.KeepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout}),
		grpc.WithContextDialer(dialTCP(tcpTimeout)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(format.MaxResponse), grpc.MaxCallSendMsgSize(format.MaxRequest)),
		grpc.WithIdleTimeout(0), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithUserAgent("gatehouse-proxy"),
	)
}

// dialTCP returns a dialer that gives up early. Dead peers are noticed by gRPC's keepalive, not by TCP's.
func dialTCP(timeout time.Duration) func(context.Context, string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: timeout, KeepAlive: -1}
	return func(ctx context.Context, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", address)
	}
}

// receive takes one message and returns the answer. An error means that the stream makes no sense.
func (f *follower) receive(ctx context.Context, r *discovery.DeltaDiscoveryResponse) (*discovery.DeltaDiscoveryRequest, error) {
	version, more, err := format.ParseVersion(r.GetSystemVersionInfo())
	if err != nil {
		return nil, err
	}
	if kind := r.GetTypeUrl(); kind != format.Subscription {
		return nil, fmt.Errorf("the controller sends %q in place of %s", kind, format.Subscription)
	}
	f.store.merge(r)
	answer := &discovery.DeltaDiscoveryRequest{TypeUrl: format.Subscription, ResponseNonce: r.GetNonce()}
	if more {
		return answer, nil
	}
	answer.ErrorDetail, err = f.take(ctx, version)
	return answer, err
}

// take applies what was received and returns what to say of it.
func (f *follower) take(ctx context.Context, version uint64) (*statuspb.Status, error) {
	next, err := f.store.build()
	// What runs already is not applied again; what was refused may have been refused for a passing reason.
	if err == nil && (next != f.tried || f.refused != nil) {
		f.tried = next
		f.applied, f.refused = f.apply(ctx, next)
		err = f.refused
		if err == nil {
			f.options.Logger.Info("configuration applied", "version", version, "listeners", len(next.Listeners), "clusters", len(next.Clusters))
		}
	}
	if err != nil {
		f.options.Logger.Error("configuration refused; the one before goes on", "version", version, "error", err)
		return format.Nack(err), nil
	}
	for name, problem := range f.applied.Listeners {
		f.options.Logger.Warn("a listener does not serve", "listener", name, "error", problem)
	}
	for name, problem := range f.applied.Clusters {
		f.options.Logger.Warn("a cluster cannot be reached", "cluster", name, "error", problem)
	}
	return format.Ack(f.applied)
}

// token is a bearer token as gRPC credentials.
type token func() (string, error)

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	text, err := t()
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return map[string]string{"authorization": "Bearer " + text}, nil
}

// RequireTransportSecurity is true: a token is not shown to whoever listens.
func (token) RequireTransportSecurity() bool { return true }

// explain puts an error of gRPC into words.
func explain(err error) string {
	if errors.Is(err, io.EOF) {
		return "the controller ended the stream"
	}
	if s, ok := status.FromError(err); ok {
		return fmt.Sprintf("%s (%s)", s.Message(), s.Code())
	}
	return err.Error()
}
