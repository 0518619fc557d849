package devcert

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// pair is a certificate with its key.
type pair struct {
	cert       *x509.Certificate
	private    *ecdsa.PrivateKey
	chain, key []byte // PEM
}

// String keeps the key out of logs.
func (p *pair) String() string { return "certificate " + p.cert.SerialNumber.String() }

// GoString keeps the key out of logs.
func (p *pair) GoString() string { return p.String() }

func encode(der []byte, private *ecdsa.PrivateKey) (*pair, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return &pair{
		cert:    cert,
		private: private,
		chain:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}, nil
}

// readPair reads a certificate and its key from one file, so that they can never be from two different moments.
func readPair(path string) (*pair, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := private(path); err != nil {
		return nil, err
	}
	certBlock, rest := pem.Decode(text)
	keyBlock, _ := pem.Decode(rest)
	if certBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("%s: no certificate with a key in it", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: key is not an ECDSA key", path)
	}
	p, err := encode(certBlock.Bytes, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !key.PublicKey.Equal(p.cert.PublicKey) {
		return nil, fmt.Errorf("%s: key does not belong to the certificate", path)
	}
	return p, nil
}

// write puts certificate and key into the file. Without replaceOld a file that is there wins, and the error is fs.ErrExist.
func (p *pair) write(path string, replaceOld bool) error {
	text := append(append([]byte{}, p.chain...), p.key...)
	if replaceOld {
		return replace(path, text, 0o600)
	}
	temporary, err := writeTemporary(path, text, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(os.Link(temporary, path), os.Remove(temporary))
}

// replace writes the file so that a reader sees the old text or the new, never a part.
func replace(path string, text []byte, mode os.FileMode) error {
	temporary, err := writeTemporary(path, text, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}

func writeTemporary(path string, text []byte, mode os.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
