package access

import (
	"container/list"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
)

const (
	// Audience is what a proxy's token is for. One for another audience, such as the API server's own, is refused.
	Audience = "gatehouse.dev/controller"
	// believed is how long a review's answer is used again: a token that ended is refused that much later at the most.
	believed = time.Minute
	// maxReviews bounds how many answers are kept.
	maxReviews = 10_000
	// maxToken bounds a token's bytes; those of API servers have about 1,200.
	maxToken = 16 << 10
	// podName is where a token review says which Pod a token is bound to.
	podName = "authentication.kubernetes.io/pod-name"
)

// Authorizer says which Gateway the bearer of a service-account token may serve. It is safe for concurrent use.
type Authorizer struct {
	reviews   authenticationclient.TokenReviewInterface
	gatewayOf func(namespace, serviceAccount string) (gateway string, ok bool)
	now       func() time.Time

	mu      sync.Mutex
	answers map[[sha256.Size]byte]*list.Element // of *answer; guarded by mu
	oldest  *list.List                          // guarded by mu
}

// identity is who a token belongs to.
type identity struct {
	namespace, account, pod string
}

type answer struct {
	key   [sha256.Size]byte
	who   identity
	until time.Time
}

// NewAuthorizer returns an Authorizer. gatewayOf says whose proxies run as a service account.
func NewAuthorizer(reviews authenticationclient.TokenReviewInterface, gatewayOf func(namespace, serviceAccount string) (string, bool)) *Authorizer {
	return &Authorizer{reviews: reviews, gatewayOf: gatewayOf, now: time.Now, answers: map[[sha256.Size]byte]*list.Element{}, oldest: list.New()}
}

// Authorize returns the Gateway, "namespace/name", and the proxy, "namespace/pod". The token must be for this audience and bound to a Pod; that
// the Pod exists is part of the API server's review. Which Gateway an account serves is asked each time.
func (a *Authorizer) Authorize(ctx context.Context, token string) (gateway, proxy string, err error) {
	if token == "" || len(token) > maxToken {
		return "", "", errors.New("no token, or one that is too long")
	}
	who, err := a.identify(ctx, token)
	if err != nil {
		return "", "", err
	}
	gateway, ok := a.gatewayOf(who.namespace, who.account)
	if !ok {
		return "", "", fmt.Errorf("service account %s/%s runs no proxy of a Gateway", who.namespace, who.account)
	}
	return gateway, who.namespace + "/" + who.pod, nil
}

// identify asks the API server, or what it said within the last minute. The token itself is not kept.
func (a *Authorizer) identify(ctx context.Context, token string) (identity, error) {
	key := sha256.Sum256([]byte(token))
	if who, ok := a.remembered(key); ok {
		return who, nil
	}
	review, err := a.reviews.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return identity{}, fmt.Errorf("the API server cannot review the token: %w", err)
	}
	who, err := read(&review.Status)
	if err != nil {
		return identity{}, err
	}
	a.remember(key, who)
	return who, nil
}

// read takes the identity out of a review.
func read(s *authenticationv1.TokenReviewStatus) (identity, error) {
	if !s.Authenticated {
		return identity{}, fmt.Errorf("the API server refuses the token: %s", s.Error)
	}
	if !slices.Contains(s.Audiences, Audience) {
		return identity{}, errors.New("the token is for another audience")
	}
	rest, ok := strings.CutPrefix(s.User.Username, "system:serviceaccount:")
	namespace, account, both := strings.Cut(rest, ":")
	if !ok || !both || namespace == "" || account == "" {
		return identity{}, errors.New("the token belongs to no service account")
	}
	pod := s.User.Extra[podName]
	if len(pod) != 1 || pod[0] == "" {
		return identity{}, errors.New("the token is bound to no Pod")
	}
	return identity{namespace, account, pod[0]}, nil
}

func (a *Authorizer) remembered(key [sha256.Size]byte) (identity, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.answers[key]
	if e == nil {
		return identity{}, false
	}
	kept := e.Value.(*answer)
	return kept.who, a.now().Before(kept.until)
}

func (a *Authorizer) remember(key [sha256.Size]byte, who identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.answers[key]; old != nil {
		a.oldest.Remove(old)
	}
	a.answers[key] = a.oldest.PushBack(&answer{key, who, a.now().Add(believed)})
	for a.oldest.Len() > maxReviews || a.oldest.Len() > 0 && !a.now().Before(a.oldest.Front().Value.(*answer).until) {
		gone := a.oldest.Remove(a.oldest.Front()).(*answer)
		delete(a.answers, gone.key)
	}
}
