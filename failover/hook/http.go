package hook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"tripod.dev/tripod/failover"
)

// most of an answer that is read.
const answerBytes = 4096

func (r *Runner) http(ctx context.Context, c failover.HookCall) (string, error) {
	h := c.Hook.HTTP
	headers := map[string]string{}
	for name, value := range h.Headers {
		headers[name] = value
	}
	method := h.Method
	if method == "" {
		method = http.MethodPost
	}
	return r.call(ctx, c, request{method: method, url: h.URL, secret: h.HeaderSecret, ca: h.CABundle, headers: headers})
}

// message posts a CloudEvent in binary mode: the attributes are headers.
func (r *Runner) message(ctx context.Context, c failover.HookCall) (string, error) {
	h := c.Hook.Message
	kind := h.Type
	if kind == "" {
		kind = "dev.tripod.recovery"
	}
	headers := map[string]string{"Ce-Specversion": "1.0", "Ce-Type": kind, "Ce-Id": c.ID,
		"Ce-Source": "/tripod/recoveryruns/" + c.Run.Name, "Ce-Subject": subject(c)}
	return r.call(ctx, c, request{method: http.MethodPost, url: h.URL, secret: h.HeaderSecret, ca: h.CABundle, headers: headers})
}

// subject of what happens: the application or, for a whole plan, its name.
func subject(c failover.HookCall) string {
	if c.Application.Name == "" {
		return c.Run.Spec.Plan
	}
	return c.Application.Namespace + "/" + c.Application.Name
}

type request struct {
	method, url, secret, ca string
	headers                 map[string]string
}

// call sends the account and takes an answer of 2xx as success. Redirects are not
// followed: they would carry the headers somewhere else.
func (r *Runner) call(ctx context.Context, c failover.HookCall, q request) (string, error) {
	body, err := json.Marshal(account(c))
	if err != nil {
		return "", fmt.Errorf("write the account of the run: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, q.url, bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("make the request to %s: %w", q.url, err)
	}
	if err := r.headers(ctx, req.Header, q); err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", c.ID)
	config, err := trust(q.ca)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	one := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := one.Do(req)
	if err != nil {
		return "", fmt.Errorf("call %s: %w", q.url, err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, answerBytes)) // what could be read is enough for a message
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return "", fmt.Errorf("%s %s answered %s, want 2xx: %s", q.method, q.url, answer.Status, bytes.TrimSpace(text))
	}
	return answer.Status, nil
}

func (r *Runner) headers(ctx context.Context, to http.Header, q request) error {
	for name, value := range q.headers {
		to.Set(name, value)
	}
	if q.secret == "" {
		return nil
	}
	if r.cfg.Headers == nil {
		return errors.New("headerSecret is given, and this hub reads no secrets for hooks")
	}
	secret, err := r.cfg.Headers(ctx, q.secret)
	if err != nil {
		return fmt.Errorf("read headerSecret %s: %w", q.secret, err)
	}
	for name, value := range secret {
		to.Set(name, value)
	}
	return nil
}

// trust is the system's authorities, or those of a bundle.
func trust(bundle string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if bundle == "" {
		return config, nil
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM([]byte(bundle)) {
		return nil, errors.New("caBundle holds no certificate in PEM")
	}
	return config, nil
}
