package content

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Seconds that a token is valid for if the pod does not say (ServiceAccountTokenProjection.expirationSeconds).
const defaultExpiration = 3600

// token puts a token for the pod into the volume. It is renewed when a fifth of its time is left, or after a day, as the kubelet does.
func (c *collector) token(ctx context.Context, source *corev1.ServiceAccountTokenProjection) error {
	key := c.volume + "/" + source.Path
	held := c.tokens[key]
	if held == nil || time.Now().After(held.renew) {
		fresh, err := c.requestToken(ctx, source)
		if err != nil {
			return err
		}
		held = fresh
		c.tokens[key] = held
	}
	return c.put(source.Path, held.text, nil)
}

func (c *collector) requestToken(ctx context.Context, source *corev1.ServiceAccountTokenProjection) (*token, error) {
	account := c.pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	seconds := int64(defaultExpiration)
	if source.ExpirationSeconds != nil {
		seconds = *source.ExpirationSeconds
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		// The API server refuses the token once the pod is gone.
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: c.pod.Name, UID: c.pod.UID},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	asked := time.Now()
	answer, err := c.resolver.Client.CoreV1().ServiceAccounts(c.pod.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("token of service account %s: %w", account, err)
	}
	// The server may grant less or more than was asked for.
	lifetime := answer.Status.ExpirationTimestamp.Sub(asked)
	return &token{answer.Status.Token, asked.Add(min(lifetime*4/5, 24*time.Hour))}, nil
}

// trustBundle puts the certificates of a ClusterTrustBundle, or of all that a signer and labels select, into the volume.
func (c *collector) trustBundle(ctx context.Context, source *corev1.ClusterTrustBundleProjection) error {
	bundles := c.resolver.Client.CertificatesV1().ClusterTrustBundles()
	var texts []string
	if source.Name != nil {
		bundle, err := bundles.Get(ctx, *source.Name, metav1.GetOptions{})
		if err != nil && unlessOptional(err, source.Optional) != nil {
			return err
		}
		if err == nil {
			texts = append(texts, bundle.Spec.TrustBundle)
		}
	} else if source.SignerName != nil {
		list, err := bundles.List(ctx, metav1.ListOptions{
			LabelSelector: metav1.FormatLabelSelector(source.LabelSelector), FieldSelector: "spec.signerName=" + *source.SignerName,
		})
		if err != nil {
			return err
		}
		for _, bundle := range list.Items {
			texts = append(texts, bundle.Spec.TrustBundle)
		}
		if len(texts) == 0 && !isTrue(source.Optional) {
			return fmt.Errorf("no ClusterTrustBundle of signer %s matches", *source.SignerName)
		}
	}
	return c.put(source.Path, distinct(texts), nil)
}

// distinct joins bundles, each certificate once, in a stable order.
func distinct(bundles []string) string {
	var blocks []string
	for _, bundle := range bundles {
		for rest := []byte(bundle); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if _, err := x509.ParseCertificate(block.Bytes); err == nil {
				blocks = append(blocks, string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})))
			}
		}
	}
	slices.Sort(blocks)
	return strings.Join(slices.Compact(blocks), "")
}
