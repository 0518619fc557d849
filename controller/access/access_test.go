package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// secrets holds one Secret, with the API server's rule about versions.
type secrets struct {
	coreclient.SecretInterface
	held   *corev1.Secret
	writes int
	// before runs before each write: somebody else may be faster.
	before func()
}

func (s *secrets) Get(_ context.Context, name string, _ metav1.GetOptions) (*corev1.Secret, error) {
	if s.held == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	return s.held.DeepCopy(), nil
}

func (s *secrets) Create(_ context.Context, o *corev1.Secret, _ metav1.CreateOptions) (*corev1.Secret, error) {
	if s.before != nil {
		s.before()
	}
	if s.held != nil {
		return nil, apierrors.NewAlreadyExists(schema.GroupResource{Resource: "secrets"}, o.Name)
	}
	return s.store(o)
}

func (s *secrets) Update(_ context.Context, o *corev1.Secret, _ metav1.UpdateOptions) (*corev1.Secret, error) {
	if o.ResourceVersion != s.held.ResourceVersion {
		return nil, apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, o.Name, errors.New("another version"))
	}
	return s.store(o)
}

func (s *secrets) store(o *corev1.Secret) (*corev1.Secret, error) {
	s.writes++
	s.held = o.DeepCopy()
	s.held.ResourceVersion = fmt.Sprint(s.writes)
	return s.held.DeepCopy(), nil
}

func newTestKeeper(s *secrets, now *time.Time) *Keeper {
	k := NewKeeper(s, []string{"c.ns.svc"}, slog.New(slog.DiscardHandler))
	k.now = func() time.Time { return *now }
	return k
}

// handshake connects a proxy that trusts ca to what the keeper serves.
func handshake(t *testing.T, k *Keeper, ca []byte, now time.Time) error {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	settings := k.TLS()
	settings.Time = func() time.Time { return now }
	served := make(chan struct{})
	go func() {
		defer close(served)
		if conn, err := listener.Accept(); err == nil {
			_ = tls.Server(conn, settings).Handshake() // the client's word counts
			conn.Close()
		}
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(),
		&tls.Config{RootCAs: roots, ServerName: "c.ns.svc", NextProtos: []string{"h2"}, Time: func() time.Time { return now }})
	if err == nil {
		conn.Close()
	}
	<-served
	return err
}

// Two years of a controller: at any time, what proxies got a day ago verifies what is served now.
func TestRotation(t *testing.T) {
	store, now := &secrets{}, start
	k := newTestKeeper(store, &now)
	if err := k.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	var yesterday []byte
	cas, most := map[string]bool{}, 0
	for day := range 730 {
		now = start.Add(time.Duration(day) * 24 * time.Hour)
		if err := k.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if yesterday != nil {
			if err := handshake(t, k, yesterday, now); err != nil {
				t.Fatalf("day %d: %v", day, err)
			}
		}
		yesterday = k.CA()
		cas[string(store.held.Data[keyCertificate])] = true
		most = max(most, strings.Count(string(yesterday), "BEGIN"))
	}
	if len(cas) != 3 && len(cas) != 4 || most != 2 {
		t.Errorf("%d CAs signed in two years, at most %d trusted at once", len(cas), most)
	}
	if store.writes > 12 {
		t.Errorf("the Secret was written %d times", store.writes)
	}
}

// A controller that was away until its CA had ended makes another.
func TestRotationTooLate(t *testing.T) {
	store, now := &secrets{}, start
	if err := newTestKeeper(store, &now).Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	now = start.Add(3 * caLifetime)
	k := newTestKeeper(store, &now)
	if err := k.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := handshake(t, k, k.CA(), now); err != nil {
		t.Error(err)
	}
	if strings.Count(string(k.CA()), "BEGIN") != 1 {
		t.Error("the CA that ended is trusted")
	}
}

func TestKeep(t *testing.T) {
	t.Run("a second controller takes what the first made", func(t *testing.T) {
		store, now := &secrets{}, start
		first, second := newTestKeeper(store, &now), newTestKeeper(store, &now)
		if err := errors.Join(first.Keep(t.Context()), second.Keep(t.Context()), first.Keep(t.Context())); err != nil {
			t.Fatal(err)
		}
		if store.writes != 1 || string(first.CA()) != string(second.CA()) {
			t.Errorf("%d writes", store.writes)
		}
		if err := handshake(t, second, first.CA(), now); err != nil {
			t.Error(err)
		}
	})
	t.Run("another made it meanwhile", func(t *testing.T) {
		store, now := &secrets{}, start
		other := newTestKeeper(store, &now)
		store.before = func() {
			store.before = nil
			if err := other.Keep(t.Context()); err != nil {
				t.Error(err)
			}
		}
		k := newTestKeeper(store, &now)
		if err := k.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if store.writes != 1 || string(k.CA()) != string(other.CA()) {
			t.Errorf("%d writes", store.writes)
		}
	})
	t.Run("something else is there", func(t *testing.T) {
		store, now := &secrets{held: &corev1.Secret{Data: map[string][]byte{"tls.crt": []byte("mine")}}}, start
		err := newTestKeeper(store, &now).Keep(t.Context())
		if err == nil || !strings.Contains(err.Error(), "delete it to have one made") || store.writes != 0 {
			t.Errorf("%v, %d writes", err, store.writes)
		}
	})
	t.Run("a foreign CA does not verify", func(t *testing.T) {
		store, now := &secrets{}, start
		k, other := newTestKeeper(store, &now), newTestKeeper(&secrets{}, &now)
		if err := errors.Join(k.Keep(t.Context()), other.Keep(t.Context())); err != nil {
			t.Fatal(err)
		}
		if handshake(t, k, other.CA(), now) == nil {
			t.Error("verified by another CA")
		}
	})
}

// reviews answers as the test says and counts.
type reviews struct {
	authenticationclient.TokenReviewInterface
	status authenticationv1.TokenReviewStatus
	err    error
	asked  int
	spec   authenticationv1.TokenReviewSpec
}

func (r *reviews) Create(_ context.Context, review *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	r.asked++
	r.spec = review.Spec
	return &authenticationv1.TokenReview{Status: r.status}, r.err
}

func reviewed(change func(*authenticationv1.TokenReviewStatus)) authenticationv1.TokenReviewStatus {
	s := authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{Audience},
		User: authenticationv1.UserInfo{
			Username: "system:serviceaccount:ns:gatehouse-g", Extra: map[string]authenticationv1.ExtraValue{podName: {"pod-1"}},
		},
	}
	change(&s)
	return s
}

func TestAuthorize(t *testing.T) {
	cases := map[string]struct {
		token   string
		change  func(*authenticationv1.TokenReviewStatus)
		err     error
		wantErr string
	}{
		"proxy":             {token: "t"},
		"no token":          {wantErr: "no token"},
		"long token":        {token: strings.Repeat("x", maxToken+1), wantErr: "too long"},
		"no answer":         {token: "t", err: errors.New("away"), wantErr: "cannot review"},
		"not authenticated": {token: "t", change: func(s *authenticationv1.TokenReviewStatus) { s.Authenticated, s.Error = false, "expired" }, wantErr: "expired"},
		"other audience":    {token: "t", change: func(s *authenticationv1.TokenReviewStatus) { s.Audiences = []string{"https://api"} }, wantErr: "another audience"},
		"no audience":       {token: "t", change: func(s *authenticationv1.TokenReviewStatus) { s.Audiences = nil }, wantErr: "another audience"},
		"a user":            {token: "t", change: func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "admin" }, wantErr: "no service account"},
		"no name":           {token: "t", change: func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:ns:" }, wantErr: "no service account"},
		"no Pod":            {token: "t", change: func(s *authenticationv1.TokenReviewStatus) { s.User.Extra = nil }, wantErr: "no Pod"},
		"two Pods":          {token: "t", change: func(s *authenticationv1.TokenReviewStatus) { s.User.Extra[podName] = []string{"a", "b"} }, wantErr: "no Pod"},
		"another account": {token: "t", change: func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:ns:x" },
			wantErr: "runs no proxy"},
		"another namespace": {token: "t", change: func(s *authenticationv1.TokenReviewStatus) {
			s.User.Username = "system:serviceaccount:other:gatehouse-g"
		},
			wantErr: "runs no proxy"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.change == nil {
				c.change = func(*authenticationv1.TokenReviewStatus) {}
			}
			r := &reviews{status: reviewed(c.change), err: c.err}
			a := NewAuthorizer(r, func(namespace, account string) (string, bool) {
				return "ns/g", namespace == "ns" && account == "gatehouse-g"
			})
			gateway, proxy, err := a.Authorize(t.Context(), c.token)
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) || gateway != "" {
					t.Errorf("%q, %v; want %q", gateway, err, c.wantErr)
				}
				if err != nil && c.token != "" && len(c.token) > 1 && strings.Contains(err.Error(), c.token) {
					t.Error("the error shows the token")
				}
				return
			}
			if err != nil || gateway != "ns/g" || proxy != "ns/pod-1" || len(r.spec.Audiences) != 1 || r.spec.Audiences[0] != Audience {
				t.Errorf("%q, %q, %v; asked for %v", gateway, proxy, err, r.spec.Audiences)
			}
		})
	}
}

// An answer is used again for a minute, but whose account it is is asked each time.
func TestAuthorizeRemembers(t *testing.T) {
	now, serves := start, true
	r := &reviews{status: reviewed(func(*authenticationv1.TokenReviewStatus) {})}
	a := NewAuthorizer(r, func(string, string) (string, bool) { return "ns/g", serves })
	a.now = func() time.Time { return now }
	ask := func(token string) error {
		_, _, err := a.Authorize(t.Context(), token)
		return err
	}
	if err := errors.Join(ask("t"), ask("t"), ask("u")); err != nil || r.asked != 2 {
		t.Errorf("asked %d times: %v", r.asked, err)
	}
	serves = false
	if ask("t") == nil {
		t.Error("the account serves no Gateway any more")
	}
	serves, now = true, now.Add(believed)
	r.status.Authenticated = false
	if ask("t") == nil || r.asked != 3 {
		t.Errorf("believed for longer than a minute; asked %d times", r.asked)
	}
	r.status.Authenticated = true
	now = now.Add(time.Second)
	for i := range maxReviews + 10 {
		if err := ask(fmt.Sprint("token", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.answers) > maxReviews || len(a.answers) != a.oldest.Len() {
		t.Errorf("%d answers kept, %d listed", len(a.answers), a.oldest.Len())
	}
}
