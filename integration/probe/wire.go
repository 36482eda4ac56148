//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"cofferdam.dev/cofferdam/integration/outcome"
)

// silence is after how much of it who sends pieces takes an answer for ended.
func silence() time.Duration { return min(150*time.Millisecond, patience/4) }

func init() {
	const pieces = "PIECE...: bytes in Go's quoted form without the quotes; @hear reads an answer first, @each sends the next piece byte by byte, @keep does not end the sending, @DURATION waits"
	attempts["wire"] = attempt{"ADDR:PORT " + pieces, 2, func(a []string, o *outcome.Outcome) error {
		c, err := dial(a[0], o)
		if err != nil {
			return err
		}
		defer c.Close()
		return speak(c, a[1:], o)
	}}
	attempts["tls-wire"] = attempt{"ADDR:PORT SNI " + pieces + "; inside a TLS connection", 3, func(a []string, o *outcome.Outcome) error {
		c, err := dial(a[0], o)
		if err != nil {
			return err
		}
		defer c.Close()
		s := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: a[1]})
		if err := s.Handshake(); err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
		return speak(s, a[2:], o)
	}}
	attempts["udp-wire"] = attempt{"ADDR:PORT PIECE: a datagram", 2, func(a []string, o *outcome.Outcome) error {
		text, err := strconv.Unquote(`"` + a[1] + `"`)
		if err != nil {
			return err
		}
		c, err := net.DialTimeout("udp", a[0], patience)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		var got bytes.Buffer
		if err := c.SetReadDeadline(time.Now().Add(silence() / 3)); err != nil {
			return err
		}
		_, err = io.CopyN(&got, c, 1) // one datagram is the answer
		if o.Reply = got.String(); err == nil {
			err = errForeign
		}
		return err
	}}
	attempts["tls-resume"] = attempt{"ADDR:PORT SNI SNI: uses the ticket of one name under another", 3, func(a []string, o *outcome.Outcome) error {
		config := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: &onlySession{}}
		for _, config.ServerName = range a[1:3] {
			c, err := dial(a[0], o)
			if err != nil {
				return err
			}
			s := tls.Client(c, config.Clone())
			err = s.Handshake()
			if err == nil {
				err = request(s, config.ServerName, nil, o)
			}
			if c.Close(); err != nil {
				return err
			}
			o.Detail = fmt.Sprintf("resumed: %v", s.ConnectionState().DidResume)
		}
		return nil
	}}
}

// onlySession is a cache that knows one session, and gives it out for every name.
type onlySession struct{ state *tls.ClientSessionState }

func (s *onlySession) Get(string) (*tls.ClientSessionState, bool)    { return s.state, s.state != nil }
func (s *onlySession) Put(_ string, session *tls.ClientSessionState) { s.state = session }

// speak sends pieces and reads the answer. It is OK if that has the marker: as long as it does not, what was asked for may still be on its way.
func speak(c net.Conn, pieces []string, o *outcome.Outcome) error {
	each, keep := false, false
	var got bytes.Buffer
	defer func() { o.Reply = got.String() }()
	for _, piece := range pieces {
		if word, ok := strings.CutPrefix(piece, "@"); ok {
			switch word {
			case "each":
				each = true
			case "keep":
				keep = true
			case "hear":
				if err := quietly(c, &got, true); err != nil {
					return err
				}
			default:
				d, err := time.ParseDuration(word)
				if err != nil {
					return err
				}
				time.Sleep(d)
			}
			continue
		}
		text, err := strconv.Unquote(`"` + piece + `"`)
		if err != nil {
			return fmt.Errorf("piece %q: %w", piece, err)
		}
		size := len(text)
		if each {
			size, each = 1, false
		}
		for len(text) > 0 {
			n := min(size, len(text))
			if _, err := io.WriteString(c, text[:n]); err != nil {
				return errors.Join(err, quietly(c, &got, false)) // it may have said why
			}
			text = text[n:]
		}
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok && !keep {
		_ = half.CloseWrite() // it may be closed already, and have said why
	}
	if err := quietly(c, &got, false); err != nil {
		return err
	}
	if !bytes.Contains(got.Bytes(), []byte(outcome.Marker)) {
		return errForeign
	}
	return nil
}

// quietly reads until the other side is silent, for once if there need be but one answer. That it ends is no error.
func quietly(c net.Conn, got *bytes.Buffer, once bool) error {
	buf := make([]byte, 4096)
	for got.Len() < 64<<10 {
		if err := c.SetReadDeadline(time.Now().Add(silence())); err != nil {
			return err
		}
		n, err := c.Read(buf)
		got.Write(buf[:n])
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded), err == nil && once:
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}
