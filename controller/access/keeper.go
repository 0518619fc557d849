package access

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
)

// SecretName is the Secret that holds the CA, in the controller's namespace.
const SecretName = "gatehouse-controller-ca"

// keepEvery is how often the CA and the serving certificate are looked at.
const keepEvery = 10 * time.Minute

// Keeper keeps the CA in its Secret and the serving certificate in memory. Its methods are safe for concurrent use.
type Keeper struct {
	secrets coreclient.SecretInterface
	names   []string
	logger  *slog.Logger
	now     func() time.Time

	mu        sync.Mutex
	authority *Authority       // guarded by mu
	serving   *tls.Certificate // guarded by mu
	signer    *pair            // that signed serving; guarded by mu
}

// NewKeeper returns a Keeper. names are those that the serving certificate is for.
func NewKeeper(secrets coreclient.SecretInterface, names []string, logger *slog.Logger) *Keeper {
	return &Keeper{secrets: secrets, names: names, logger: logger, now: time.Now}
}

// Run keeps both until ctx ends. Keep must have succeeded before.
func (k *Keeper) Run(ctx context.Context) {
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := k.Keep(ctx); err != nil && ctx.Err() == nil {
				k.logger.Error("the controller's CA or certificate cannot be renewed; trying again", "error", err)
			}
		}
	}
}

// Keep reads the CA, makes or renews it when it is time, and the serving certificate with it.
func (k *Keeper) Keep(ctx context.Context) error {
	for range 5 {
		err := k.keep(ctx)
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return errors.New("the Secret " + SecretName + ": somebody else writes it all the time")
}

func (k *Keeper) keep(ctx context.Context) error {
	secret, err := k.secrets.Get(ctx, SecretName, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("the Secret %s: %w", SecretName, err)
	}
	var held *Authority
	if !missing {
		if held, err = decode(secret.Data); err != nil {
			return fmt.Errorf("the Secret %s holds no CA that can be used; delete it to have one made: %w", SecretName, err)
		}
	}
	authority, err := rotate(held, k.now())
	if err != nil {
		return err
	}
	if authority != held {
		if err := k.write(ctx, secret, missing, authority); err != nil {
			return err
		}
		k.logger.Info("wrote the controller's CA", "secret", SecretName, "ends", authority.signer.certificate.NotAfter, "trusted", len(authority.bundle))
	}
	return k.take(authority)
}

func (k *Keeper) write(ctx context.Context, secret *corev1.Secret, missing bool, a *Authority) error {
	data, err := a.encode()
	if err != nil {
		return err
	}
	if missing {
		_, err = k.secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: SecretName}, Type: corev1.SecretTypeOpaque, Data: data},
			metav1.CreateOptions{})
		return err
	}
	secret = secret.DeepCopy()
	maps.DeleteFunc(secret.Data, func(string, []byte) bool { return true })
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	maps.Copy(secret.Data, data)
	_, err = k.secrets.Update(ctx, secret, metav1.UpdateOptions{}) // with its resource version: a conflict when another leader wrote
	return err
}

// take makes a the authority in use, with a serving certificate of it.
func (k *Keeper) take(a *Authority) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if k.serving == nil || !k.signer.certificate.Equal(a.signer.certificate) || k.serving.Leaf.NotAfter.Sub(now) < servingLifetime/2 {
		serving, err := a.issue(k.names, now)
		if err != nil {
			return err
		}
		k.serving, k.signer = serving, a.signer
	}
	k.authority = a
	return nil
}

// CA returns the PEM of the CAs to trust; nil before the first Keep.
func (k *Keeper) CA() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.authority == nil {
		return nil
	}
	return k.authority.Bundle()
}

// TLS returns the settings to serve with. A renewed certificate is used from the next handshake on.
func (k *Keeper) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.serving == nil {
				return nil, errors.New("no serving certificate yet")
			}
			return k.serving, nil
		},
	}
}
