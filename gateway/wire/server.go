// Package wire hands each Gateway's proxies their configuration: the controller's end of the transport between controller and
// gatehouse-proxy. Package client is the other end, README.md describes what travels between them.
//
//	controller: Set(gateway, version, config) -> catalog: resources with hashes -> fleet -> one stream for each proxy
//	proxy:      client.Follow: resources -> config.Config -> Engine.Apply -> ack or nack -> Proxies, OnChange
//
// The transport is xDS incremental discovery (delta) over gRPC, by go-control-plane's delta server, with resources of our own. The package
// knows config.Config and nothing of Kubernetes: who a token belongs to is asked of the caller.
package wire

import (
	"context"
	"encoding/base64"
	"encoding/json/v2"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire/internal/format"
)

const (
	// maxStreams bounds the streams of all Gateways together.
	maxStreams = 10000
	// maxOfProxy bounds the streams of one proxy, which has one, and for a moment another when it begins anew. Else whoever can read one proxy's
	// token could keep the proxies of all other Gateways out.
	maxOfProxy = 8
	// maxAuthorizing bounds the calls of Authorize under way.
	maxAuthorizing = 64
	// authorizeTime bounds one of them.
	authorizeTime = 10 * time.Second
	// firstRequestTime is how long a stream may say nothing at its beginning.
	firstRequestTime = 10 * time.Second
	// tokenAge is how long a stream lasts when its token does not say when it expires.
	tokenAge = time.Hour
	// maxTokenAge bounds how long a token is believed, whatever it says.
	maxTokenAge = 24 * time.Hour
)

var (
	errExpired = errors.New("the token has expired")
	errSilent  = errors.New("no request came")
	errClosed  = errors.New("the controller stops")
)

// ServerOptions are a Server's settings.
type ServerOptions struct {
	// Authorize says which Gateway ("namespace/name") the bearer of a token may serve; proxy names it in logs ("namespace/pod"). It is
	// asked at the beginning of each stream. A stream ends when its token expires (the JWT's exp; an hour where it has none).
	Authorize func(ctx context.Context, token string) (gateway, proxy string, err error)
	// OnChange is told when a proxy of a Gateway connected, acknowledged, refused or left. It must not block. nil is none.
	OnChange func(gateway string)
	// Logger gets connections and refusals; nil discards them.
	Logger *slog.Logger
}

// Proxy is what is known of a connected proxy.
type Proxy struct {
	Name string
	// Since is when it connected.
	Since time.Time
	// Version is the last that it acknowledged, 0 for none yet.
	Version uint64
	// Refused says why it refused the newest configuration as a whole; "" when it did not.
	Refused string
	// Listeners and Clusters are what of the acknowledged version does not serve, by name, with the reasons (config.Applied).
	Listeners, Clusters map[string]string
}

// Server hands each Gateway's proxies their configuration, as deltas by object. Its methods are safe for concurrent use.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer

	options     ServerOptions
	authorizing chan struct{} // one token for each call under way
	working     sync.WaitGroup
	lifetime    context.Context // ends with Close
	close       context.CancelCauseFunc

	mu      sync.Mutex
	fleets  map[string]*fleet // by Gateway; guarded by mu, as all below
	streams int
	proxies map[string]int // streams by Gateway and proxy
	closed  bool
}

// NewServer returns a Server that has nothing to hand out yet. Proxies may connect before Set; they wait.
func NewServer(o ServerOptions) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnChange == nil {
		o.OnChange = func(string) {}
	}
	s := &Server{options: o, authorizing: make(chan struct{}, maxAuthorizing), fleets: map[string]*fleet{}, proxies: map[string]int{}}
	s.lifetime, s.close = context.WithCancelCause(context.Background())
	return s
}

// GRPCOptions are the limits that the gRPC server of a Server must have: sizes, streams, and keepalive, so that the stream of a proxy whose
// machine is gone ends within a minute. The caller adds the credentials.
func GRPCOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(format.MaxRequest),
		grpc.MaxHeaderListSize(32 << 10),
		grpc.MaxConcurrentStreams(4), // a proxy has one
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Minute, Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
	}
}

// Register adds the service to a gRPC server, which should have GRPCOptions and TLS.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discovery.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// Set replaces what a Gateway's proxies are to run. version is told back by Proxies; it grows. Items whose pointers are those of the
// configuration before are taken as unchanged. An error names an object that cannot be sent; what was set before then stays.
func (s *Server) Set(gateway string, version uint64, c *config.Config) error {
	f := s.acquire(gateway)
	defer s.release(f)
	if err := f.replace(version, c); err != nil {
		return fmt.Errorf("the configuration of Gateway %s cannot be sent: %w", gateway, err)
	}
	return nil
}

// Remove forgets a Gateway and ends the streams of its proxies, which go on with what they run.
func (s *Server) Remove(gateway string) {
	s.mu.Lock()
	f := s.fleets[gateway]
	delete(s.fleets, gateway)
	s.mu.Unlock()
	if f != nil {
		f.remove()
	}
}

// Proxies returns the connected proxies of a Gateway, sorted by name.
func (s *Server) Proxies(gateway string) []Proxy {
	s.mu.Lock()
	f := s.fleets[gateway]
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f.proxies()
}

// Close ends all streams and waits until they are over.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.close(errClosed)
	s.working.Wait()
}

// acquire returns a Gateway's fleet, which may have no configuration yet. The caller releases it.
func (s *Server) acquire(gateway string) *fleet {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fleets[gateway]
	if f == nil {
		f = newFleet(gateway, s.options.OnChange)
		s.fleets[gateway] = f
	}
	f.users++
	return f
}

// release forgets a fleet that was made for a proxy of a Gateway that nobody ever set.
func (s *Server) release(f *fleet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.users--; f.users == 0 && s.fleets[f.gateway] == f && f.unused() {
		delete(s.fleets, f.gateway)
	}
}

// enter counts a stream in.
func (s *Server) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return status.Error(codes.Unavailable, errClosed.Error())
	case s.streams >= maxStreams:
		return status.Error(codes.ResourceExhausted, "too many streams; try again later")
	}
	s.streams++
	s.working.Add(1)
	return nil
}

func (s *Server) exit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams--
	s.working.Done()
}

// admit counts a stream of a proxy in.
func (s *Server) admit(proxy string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proxies[proxy] >= maxOfProxy {
		return status.Error(codes.ResourceExhausted, "too many streams of this proxy; end one first")
	}
	s.proxies[proxy]++
	return nil
}

func (s *Server) dismiss(proxy string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proxies[proxy]--; s.proxies[proxy] == 0 {
		delete(s.proxies, proxy)
	}
}

// DeltaAggregatedResources serves one proxy until it leaves, its token expires, its Gateway is removed or the Server is closed.
func (s *Server) DeltaAggregatedResources(call discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	ctx, end := context.WithCancelCause(call.Context())
	defer end(nil)
	defer context.AfterFunc(s.lifetime, func() { end(errClosed) })()

	gateway, proxy, until, err := s.authorize(ctx)
	if err != nil {
		return err
	}
	if err := s.admit(gateway + " " + proxy); err != nil {
		return err
	}
	defer s.dismiss(gateway + " " + proxy)
	f := s.acquire(gateway)
	defer s.release(f)
	st := &stream{
		fleet: f, name: proxy, since: time.Now(), end: end, begun: make(chan struct{}), stale: map[string]struct{}{},
	}
	defer time.AfterFunc(time.Until(until), func() { end(errExpired) }).Stop()
	silence := time.AfterFunc(firstRequestTime, func() {
		select {
		case <-st.begun:
		default:
			end(errSilent)
		}
	})
	defer silence.Stop()
	s.options.Logger.Info("proxy connected", "gateway", gateway, "proxy", proxy)

	served := make(chan error, 1)
	s.working.Go(func() {
		served <- delta.NewServer(ctx, st, st).DeltaStreamHandler(interrupted{call, ctx}, format.Subscription)
	})
	select {
	case err = <-served:
	case <-ctx.Done(): // returning ends a Send that the client does not read
	}
	if cause := context.Cause(ctx); cause != nil {
		err = ended(cause)
	}
	if f.leave(st) {
		f.onChange(gateway)
	}
	s.options.Logger.Info("proxy left", "gateway", gateway, "proxy", proxy, "reason", reason(err))
	return err
}

// ended says to the client why its stream was ended.
func ended(cause error) error {
	switch {
	case errors.Is(cause, errExpired):
		return status.Error(codes.Unauthenticated, cause.Error()+"; connect again with a new one")
	case errors.Is(cause, errRemoved):
		return status.Error(codes.NotFound, cause.Error())
	case errors.Is(cause, errReplaced):
		return status.Error(codes.Aborted, cause.Error())
	case errors.Is(cause, errSilent):
		return status.Error(codes.DeadlineExceeded, cause.Error())
	case errors.Is(cause, errClosed):
		return status.Error(codes.Unavailable, cause.Error())
	}
	return status.FromContextError(cause).Err()
}

func reason(err error) string {
	if err == nil {
		return "the proxy ended the stream"
	}
	return status.Convert(err).Message()
}

// authorize asks who the bearer of the call's token is. The client is told no details; the log is.
func (s *Server) authorize(ctx context.Context) (gateway, proxy string, until time.Time, err error) {
	token, ok := bearer(ctx)
	if !ok {
		return "", "", time.Time{}, status.Error(codes.Unauthenticated, "the metadata need exactly one authorization: Bearer TOKEN")
	}
	select {
	case s.authorizing <- struct{}{}:
	default:
		return "", "", time.Time{}, status.Error(codes.ResourceExhausted, "too many connections at once; try again later")
	}
	defer func() { <-s.authorizing }()
	until = expiry(token, time.Now())
	ctx, cancel := context.WithTimeout(ctx, authorizeTime)
	defer cancel()
	gateway, proxy, err = s.options.Authorize(ctx, token)
	switch {
	case err != nil:
		s.options.Logger.Warn("proxy refused", "error", err)
		return "", "", time.Time{}, status.Error(codes.Unauthenticated, "the token is not accepted")
	case gateway == "":
		return "", "", time.Time{}, status.Error(codes.PermissionDenied, "the token is for no Gateway")
	case time.Until(until) <= 0:
		return "", "", time.Time{}, status.Error(codes.Unauthenticated, errExpired.Error())
	}
	return gateway, proxy, until, nil
}

func bearer(ctx context.Context) (token string, ok bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

// expiry returns how long a token is believed. It reads the claim of a JWT without verifying it: whether to believe the token at all is
// Authorize's to say, and a claim can only shorten the time up to maxTokenAge.
func expiry(token string, now time.Time) time.Time {
	var claims struct {
		Expires float64 `json:"exp"`
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return now.Add(tokenAge)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Expires <= 0 {
		return now.Add(tokenAge)
	}
	if left := claims.Expires - float64(now.Unix()); left < maxTokenAge.Seconds() {
		return now.Add(time.Duration(left * float64(time.Second)))
	}
	return now.Add(maxTokenAge)
}
