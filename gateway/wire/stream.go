package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	xdsstream "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"gatehouse.dev/gatehouse/gateway/wire/internal/format"
)

// errReplaced ends a stream whose proxy has made another one.
var errReplaced = errors.New("the proxy has made a new stream")

// stream is one proxy's stream: the cache and the callbacks of a delta server of its own, which is what makes it impossible for it to be
// handed anything but its fleet's resources. What is asked for in requests has no part in choosing them.
//
// One response is under way at a time. While it is, changes only mark names as stale; the answer to it opens the next watch, and what is
// stale by then goes out as one change. A change that is too big for one message goes out in parts; what changes meanwhile waits for
// the change after.
type stream struct {
	fleet *fleet
	name  string // of the proxy
	since time.Time
	end   context.CancelCauseFunc
	begun chan struct{} // closed by the first request

	// What follows is guarded by fleet.mu.

	instance string                   // of the proxy's process, as it says
	out      chan cache.DeltaResponse // the open watch; nil when there is none
	has      map[string]string        // versions that the proxy came with, until it is greeted
	greeted  bool                     // whether the first change is put together
	stale    map[string]struct{}      // names that changed since the last change was put together
	parts    []*discovery.DeltaDiscoveryResponse
	sent     uint64 // version of the change under way, or last answered
	waiting  bool   // for the answer to a response
	last     bool   // whether that response ends the change
	nonce    string // of that response
	over     bool   // nobody serves it any more

	acknowledged uint64
	refused      string
	applied      format.Applied
}

// CreateWatch refuses: state-of-the-world requests do not come here.
func (s *stream) CreateWatch(*cache.Request, cache.Subscription, chan cache.Response) (func(), error) {
	return nil, status.Error(codes.Unimplemented, "only the delta protocol is served")
}

// CreateDeltaWatch opens the watch that the next change answers.
func (s *stream) CreateDeltaWatch(_ *cache.DeltaRequest, _ cache.Subscription, out chan cache.DeltaResponse) (func(), error) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	s.out = out
	s.advance()
	return func() {
		s.fleet.mu.Lock()
		defer s.fleet.mu.Unlock()
		s.out = nil // the channel is closed after this
	}, nil
}

// OnDeltaStreamOpen does nothing.
func (s *stream) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

// OnDeltaStreamClosed does nothing: Server.DeltaAggregatedResources cleans up.
func (s *stream) OnDeltaStreamClosed(int64, *core.Node) {}

// OnStreamDeltaResponse notes the nonce that the answer must carry.
func (s *stream) OnStreamDeltaResponse(_ int64, _ *discovery.DeltaDiscoveryRequest, r *discovery.DeltaDiscoveryResponse) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	s.nonce = r.GetNonce()
}

// OnStreamDeltaRequest takes the first request, which says what the proxy has, and then the answer to each response. Anything else ends
// the stream: a proxy has no reason for it, and each request costs work.
func (s *stream) OnStreamDeltaRequest(_ int64, r *discovery.DeltaDiscoveryRequest) error {
	subscribed := r.GetResourceNamesSubscribe()
	switch {
	case r.GetTypeUrl() != format.Subscription:
		return status.Errorf(codes.InvalidArgument, "type %q is not served; subscribe to %s", clip(r.GetTypeUrl()), format.Subscription)
	case len(subscribed) > 0 && !slices.Equal(subscribed, []string{"*"}), len(r.GetResourceNamesUnsubscribe()) > 0:
		return status.Error(codes.InvalidArgument, "a proxy gets the whole configuration of its Gateway; it cannot choose resources by name")
	}
	select {
	case <-s.begun:
		return s.answer(r)
	default:
		return s.begin(r)
	}
}

func (s *stream) begin(r *discovery.DeltaDiscoveryRequest) error {
	if r.GetResponseNonce() != "" {
		return status.Error(codes.InvalidArgument, "the first request of a stream answers a response")
	}
	// The token alone says which Gateway it is; the node's claim tells a mix-up of settings.
	if claim := r.GetNode().GetCluster(); claim != s.fleet.gateway {
		return status.Errorf(codes.PermissionDenied, "the token is for a proxy of Gateway %s, not %q", s.fleet.gateway, clip(claim))
	}
	s.instance = clip(r.GetNode().GetId()) // nobody else sees the stream before join
	s.has = r.GetInitialResourceVersions()
	close(s.begun)
	s.fleet.join(s)
	s.fleet.onChange(s.fleet.gateway)
	return nil
}

func (s *stream) answer(r *discovery.DeltaDiscoveryRequest) error {
	if len(r.GetInitialResourceVersions()) > 0 {
		return status.Error(codes.InvalidArgument, "only the first request of a stream says what the proxy has")
	}
	refused, applied, err := format.Answer(r.GetErrorDetail())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	told, err := s.answered(r.GetResponseNonce(), refused, applied)
	if err != nil {
		return err
	}
	if told {
		s.fleet.onChange(s.fleet.gateway)
	}
	return nil
}

// answered reports whether the answer tells something of the proxy.
func (s *stream) answered(nonce, refused string, applied format.Applied) (bool, error) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	if !s.waiting || nonce == "" || nonce != s.nonce {
		return false, status.Errorf(codes.InvalidArgument, "nonce %q is of no response that waits for an answer", clip(nonce))
	}
	s.waiting = false
	if !s.last && refused == "" {
		return false, nil
	}
	s.refused = refused
	if refused == "" {
		s.acknowledged, s.applied = s.sent, applied
		s.catchUp()
	}
	return true, nil
}

// catchUp moves what is acknowledged to the newest version when that has the same content. It reports whether there was anything to do.
// fleet.mu is held.
func (s *stream) catchUp() bool {
	current := s.greeted && !s.waiting && len(s.parts) == 0 && len(s.stale) == 0 && s.refused == ""
	if !current || s.acknowledged == s.fleet.version {
		return false
	}
	s.acknowledged = s.fleet.version
	return true
}

// change marks names as stale and sends when a watch is open. It reports whether the proxy's acknowledged version changed by it. fleet.mu
// is held.
func (s *stream) change(names []string) bool {
	if s.greeted {
		for _, name := range names {
			s.stale[name] = struct{}{}
		}
	}
	s.advance()
	return s.catchUp()
}

// advance answers the open watch, if there is something to send. fleet.mu is held.
func (s *stream) advance() {
	if s.out == nil || !s.fleet.set {
		return
	}
	if len(s.parts) == 0 && !s.greeted {
		s.greet()
	}
	if len(s.parts) == 0 && len(s.stale) > 0 {
		s.cut()
	}
	if len(s.parts) == 0 {
		return
	}
	next := s.parts[0]
	if s.parts = s.parts[1:]; len(s.parts) == 0 {
		s.parts = nil // with the messages behind it
	}
	s.waiting, s.last, s.nonce = true, len(s.parts) == 0, ""
	s.out <- &response{next} // it has room: one response is under way at a time
	s.out = nil
}

// greet finds what the proxy lacks. It is sent even when that is nothing: the answer tells that the proxy runs this version.
func (s *stream) greet() {
	for name, resource := range s.fleet.resources {
		if s.has[name] != resource.GetVersion() {
			s.stale[name] = struct{}{}
		}
	}
	for name := range s.has {
		if s.fleet.resources[name] == nil {
			s.stale[name] = struct{}{}
		}
	}
	s.has, s.greeted = nil, true
	s.cut()
}

// cut makes messages out of what is stale.
func (s *stream) cut() {
	size := 0
	part := &discovery.DeltaDiscoveryResponse{TypeUrl: format.Subscription}
	s.parts = append(s.parts, part)
	for name := range s.stale {
		if size > format.PartBytes {
			size = 0
			part = &discovery.DeltaDiscoveryResponse{TypeUrl: format.Subscription}
			s.parts = append(s.parts, part)
		}
		size += 64 + len(name)
		if resource := s.fleet.resources[name]; resource != nil {
			size += len(resource.GetResource().GetValue())
			part.Resources = append(part.Resources, resource)
		} else {
			part.RemovedResources = append(part.RemovedResources, name)
		}
	}
	s.sent = s.fleet.version
	for i, part := range s.parts {
		part.SystemVersionInfo = format.Version(s.sent, i < len(s.parts)-1)
	}
	s.stale = map[string]struct{}{}
}

// response is one message for the delta server to send.
type response struct {
	message *discovery.DeltaDiscoveryResponse
}

func (r *response) GetDeltaDiscoveryResponse() (*discovery.DeltaDiscoveryResponse, error) {
	return r.message, nil
}

// GetDeltaRequest is asked for the type alone.
func (r *response) GetDeltaRequest() *discovery.DeltaDiscoveryRequest {
	return &discovery.DeltaDiscoveryRequest{TypeUrl: format.Subscription}
}

func (r *response) GetSystemVersion() (string, error) { return r.message.GetSystemVersionInfo(), nil }
func (r *response) GetResponseVersion() string        { return r.message.GetSystemVersionInfo() }

// GetNextVersionMap returns nothing: the stream knows by itself what the proxy has, and a map for each would be large.
func (r *response) GetNextVersionMap() map[string]string    { return nil }
func (r *response) GetReturnedResources() map[string]string { return nil }
func (r *response) GetContext() context.Context             { return context.Background() }

// interrupted ends Recv and Send of the delta server with the stream's own context, which may end before the client's.
type interrupted struct {
	xdsstream.DeltaStream
	ctx context.Context
}

// Context returns the stream's own.
func (i interrupted) Context() context.Context { return i.ctx }

// clip bounds a client's text for error messages and memory.
func clip(text string) string {
	if len(text) > 256 {
		return fmt.Sprintf("%.256s...", text)
	}
	return text
}
