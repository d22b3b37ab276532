package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

const (
	certLife  = 365 * 24 * time.Hour
	renewLeft = 30 * 24 * time.Hour
)

// certificates makes a CA and headscale's certificate, unless those there are
// good for another while. The CA's key is never written: a new certificate
// comes with a new CA.
func certificates(private, shared string, owner int, now time.Time) error {
	dir := filepath.Join(private, "tls")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making a place for headscale's certificate: %w", err)
	}
	certFile, keyFile := filepath.Join(dir, "headscale.crt"), filepath.Join(dir, "headscale.key")
	caFile := filepath.Join(shared, "ca.pem")
	if stillGood(certFile, caFile, now) {
		return nil
	}
	p, err := makePair(now)
	if err != nil {
		return fmt.Errorf("making the lab's certificates: %w", err)
	}
	for _, f := range []struct {
		path string
		data []byte
		mode os.FileMode
	}{
		// The key is headscale's alone, and it is there before its certificate.
		{keyFile, p.key, 0o400},
		{certFile, p.cert, 0o444},
		{caFile, p.ca, 0o444},
	} {
		if err := replaceFile(f.path, f.data, f.mode); err != nil {
			return err
		}
	}
	if err := os.Chown(keyFile, owner, owner); err != nil {
		return fmt.Errorf("giving headscale its key: %w", err)
	}
	return nil
}

// stillGood tells whether the certificate verifies against the CA, for the
// name headscale, and will for another month.
func stillGood(certFile, caFile string, now time.Time) bool {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return false
	}
	caPEM, err := os.ReadFile(caFile)
	if err != nil {
		return false
	}
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(caPEM)
	_, err = cert.Verify(x509.VerifyOptions{DNSName: "headscale", Roots: roots, CurrentTime: now.Add(renewLeft)})
	return err == nil
}

type pair struct{ ca, cert, key []byte }

func makePair(now time.Time) (pair, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: "tailxds lab CA"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return pair{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1),
		Subject:      pkix.Name{CommonName: "headscale"},
		NotBefore:    ca.NotBefore,
		NotAfter:     ca.NotAfter,
		DNSNames:     []string{"headscale"},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return pair{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair{}, err
	}
	p := pair{
		ca:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
	_, err = tls.X509KeyPair(p.cert, p.key)
	return p, err
}
