package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire/internal/format"
)

// rig is a follower without a connection.
type rig struct {
	t *testing.T
	*follower
	applied []*config.Config
	fail    error
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t}
	r.follower = &follower{options: Options{Logger: slog.New(slog.DiscardHandler)}, store: newStore()}
	r.apply = func(_ context.Context, cfg *config.Config) (config.Applied, error) {
		r.applied = append(r.applied, cfg)
		return config.Applied{}, r.fail
	}
	return r
}

// send hands a message over and returns why it was refused, "" when it was not.
func (r *rig) send(version string, removed []string, resources ...*discovery.Resource) string {
	r.t.Helper()
	answer, err := r.receive(r.t.Context(), &discovery.DeltaDiscoveryResponse{
		TypeUrl: format.Subscription, SystemVersionInfo: version, Nonce: "n" + version, Resources: resources, RemovedResources: removed,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if answer.GetResponseNonce() != "n"+version || answer.GetTypeUrl() != format.Subscription {
		r.t.Errorf("the answer is %v", answer)
	}
	refused, _, err := format.Answer(answer.GetErrorDetail())
	if err != nil {
		r.t.Fatal(err)
	}
	return refused
}

func (r *rig) encode(name string, message any) *discovery.Resource {
	r.t.Helper()
	encoded, err := format.Encode(name, message)
	if err != nil {
		r.t.Fatal(err)
	}
	return encoded
}

func (r *rig) listener(name string) *discovery.Resource {
	return r.encode(format.ListenerName(name), &config.Listener{Name: name, Port: 80, Protocol: config.HTTP})
}

func (r *rig) page(listener, first, next string, routes ...string) *discovery.Resource {
	return r.encode(format.PageName(listener, first), &format.Page{Listener: listener, First: first, Next: next, Routes: routes})
}

func (r *rig) route(name string) *discovery.Resource {
	route := &config.Route{Origin: config.Origin{Kind: "HTTPRoute", Name: name}}
	return r.encode(format.RouteName(route), route)
}

func malformed(name, kind, payload string) *discovery.Resource {
	return &discovery.Resource{Name: name, Version: "v", Resource: &anypb.Any{TypeUrl: kind, Value: []byte(payload)}}
}

// TestMalformed: what cannot be read or put together is refused by name, what ran goes on, and the repair alone makes it good.
func TestMalformed(t *testing.T) {
	tests := map[string]struct {
		resources func(*rig) []*discovery.Resource
		removed   []string
		want      string
		repair    func(*rig) []*discovery.Resource
		unrepair  []string // removed in place of repaired
	}{
		"no JSON": {
			resources: func(*rig) []*discovery.Resource {
				return []*discovery.Resource{malformed("route/HTTPRoute/a", format.TypeRoute, "{")}
			},
			want:   "route/HTTPRoute/a",
			repair: func(r *rig) []*discovery.Resource { return []*discovery.Resource{r.route("a")} },
		},
		"unknown field, removed": {
			resources: func(*rig) []*discovery.Resource {
				return []*discovery.Resource{malformed("cluster/c", format.TypeCluster, `{"name":"c","mustNotBeIgnored":true}`)}
			},
			want: "mustNotBeIgnored", unrepair: []string{"cluster/c"},
		},
		"unknown kind": {
			resources: func(*rig) []*discovery.Resource {
				return []*discovery.Resource{malformed("new/x", "gatehouse.dev/wire.v1.New", "{}")}
			},
			want: "new/x", unrepair: []string{"new/x"},
		},
		"many": {
			resources: func(*rig) (list []*discovery.Resource) {
				for _, name := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
					list = append(list, malformed("endpoints/"+name, format.TypeEndpoints, "x"))
				}
				return list
			},
			want: "and 16 more",
			repair: func(r *rig) (list []*discovery.Resource) {
				for _, name := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
					list = append(list, r.encode("endpoints/"+name, &format.Endpoints{Cluster: name}))
				}
				return list
			},
		},
		"route missing": {
			removed: []string{"route/HTTPRoute/a"}, want: "route/HTTPRoute/a is missing",
			repair: func(r *rig) []*discovery.Resource { return []*discovery.Resource{r.route("a")} },
		},
		"page missing": {
			resources: func(r *rig) []*discovery.Resource {
				return []*discovery.Resource{r.page("l", "", "route/HTTPRoute/b", "route/HTTPRoute/a")}
			},
			want: "from route/HTTPRoute/b on is missing",
			repair: func(r *rig) []*discovery.Resource {
				return []*discovery.Resource{r.page("l", "route/HTTPRoute/b", "", "route/HTTPRoute/b"), r.route("b")}
			},
		},
		"pages in a circle": {
			resources: func(r *rig) []*discovery.Resource {
				return []*discovery.Resource{r.page("l", "", "x", "route/HTTPRoute/a"), r.page("l", "x", "x", "route/HTTPRoute/a")}
			},
			want: "circle",
			repair: func(r *rig) []*discovery.Resource {
				return []*discovery.Resource{r.page("l", "x", "", "route/HTTPRoute/a")}
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if refused := r.send("1", nil, r.listener("l"), r.page("l", "", "", "route/HTTPRoute/a"), r.route("a")); refused != "" {
				t.Fatal(refused)
			}
			good := r.applied[0]
			var resources []*discovery.Resource
			if tt.resources != nil {
				resources = tt.resources(r)
			}
			if refused := r.send("2", tt.removed, resources...); !strings.Contains(refused, tt.want) {
				t.Errorf("refused with %q, want %q", refused, tt.want)
			}
			// So it is with a change of something else.
			if refused := r.send("3", nil, r.encode("certificate/c", &config.Certificate{Name: "c"})); !strings.Contains(refused, tt.want) {
				t.Errorf("refused with %q, want %q", refused, tt.want)
			}
			if len(r.applied) != 1 || len(good.Listeners[0].Routes) != 1 {
				t.Errorf("%d configurations were applied", len(r.applied))
			}
			for _, resource := range resources {
				if version, ok := r.store.versions[resource.GetName()]; !ok || version == "v" {
					t.Errorf("%s is asked for with version %q, %v", resource.GetName(), version, ok)
				}
			}
			var repair []*discovery.Resource
			if tt.repair != nil {
				repair = tt.repair(r)
			}
			if refused := r.send("4", tt.unrepair, repair...); refused != "" {
				t.Errorf("the repair is refused: %s", refused)
			}
			if len(r.applied) != 2 || len(r.applied[1].Certificates) != 1 {
				t.Errorf("%d configurations were applied", len(r.applied))
			}
		})
	}
}

// TestPartsAreOne: nothing is applied before the last message of a change.
func TestPartsAreOne(t *testing.T) {
	r := newRig(t)
	r.send("1+", nil, r.listener("l"), r.page("l", "", "", "route/HTTPRoute/a"))
	if len(r.applied) != 0 {
		t.Error("a part was applied")
	}
	if refused := r.send("1", nil, r.route("a")); refused != "" || len(r.applied) != 1 || len(r.applied[0].Listeners[0].Routes) != 1 {
		t.Errorf("%q, %d applied", refused, len(r.applied))
	}
}

// TestRefusedIsTriedAgain: an empty change, as after a reconnect, calls apply again only when it failed.
func TestRefusedIsTriedAgain(t *testing.T) {
	r := newRig(t)
	r.fail = errors.New("out of memory")
	if refused := r.send("1", nil, r.listener("l")); refused != "out of memory" {
		t.Error(refused)
	}
	r.fail = nil
	for range 2 {
		if refused := r.send("2", nil); refused != "" || len(r.applied) != 2 {
			t.Errorf("%q, %d applied", refused, len(r.applied))
		}
	}
}

// TestNonsense: a stream that makes no sense is given up.
func TestNonsense(t *testing.T) {
	for name, response := range map[string]*discovery.DeltaDiscoveryResponse{
		"version": {TypeUrl: format.Subscription, SystemVersionInfo: "x"}, "type": {TypeUrl: "other", SystemVersionInfo: "1"},
	} {
		if _, err := newRig(t).receive(t.Context(), response); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestEndpointsApart: endpoints may come before, after and without their cluster.
func TestEndpointsApart(t *testing.T) {
	r := newRig(t)
	address := netip.MustParseAddrPort("192.0.2.1:80")
	cluster := func() *config.Cluster { return r.applied[len(r.applied)-1].Clusters[0] }
	r.send("1", nil, r.encode("endpoints/c", &format.Endpoints{Cluster: "c", Addresses: []netip.AddrPort{address}}))
	if got := r.applied[0].Clusters; len(got) != 0 {
		t.Errorf("clusters: %v", got)
	}
	r.send("2", nil, r.encode("cluster/c", &config.Cluster{Name: "c"}))
	if got := cluster().Endpoints; len(got) != 1 || got[0] != address {
		t.Errorf("endpoints: %v", got)
	}
	r.send("3", []string{"endpoints/c"})
	if got := cluster().Endpoints; len(got) != 0 {
		t.Errorf("endpoints: %v", got)
	}
}

// TestBackoff: it doubles, is bounded, and differs from proxy to proxy.
func TestBackoff(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: firstWait, 2: 2 * firstWait, 4: 8 * firstWait, 7: maxWait, 1000: maxWait, 1 << 40: maxWait} {
		if least, most := backoff(failures, 1), backoff(failures, 0); most != want || least != want/2 {
			t.Errorf("after %d failures %s to %s, want %s to %s", failures, least, most, want/2, want)
		}
	}
}

// TestSilentAddress: where nothing answers, an attempt ends soon, so that the next can lead elsewhere.
func TestSilentAddress(t *testing.T) {
	const timeout = 50 * time.Millisecond
	dial := dialTCP(timeout)
	address := silent(t)
	// The kernel completes as many handshakes as fit into the backlog, which is the least possible and never emptied.
	for range 16 {
		began := time.Now()
		conn, err := dial(t.Context(), address)
		if err == nil {
			defer conn.Close()
			continue
		}
		var timedOut net.Error
		if !errors.As(err, &timedOut) || !timedOut.Timeout() {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(began); took < timeout || took > connectTimeout {
			t.Errorf("gave up after %s", took)
		}
		return
	}
	t.Error("every connection was accepted")
}

// silent returns the address of a socket that nobody accepts from.
func silent(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(bound.(*syscall.SockaddrInet4).Port)).String()
}
