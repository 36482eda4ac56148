//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"cofferdam.dev/cofferdam/integration/outcome"
)

func init() {
	attempts["spelled"] = attempt{"WHAT PORT FRONT: asks a front (connect, socks, absolute, host) for each spelling of loopback, metadata or evil; OK if one leads to the lab", 3, spelled}
}

// spellings of places where nobody may get to. Some programs read each of them as that.
var spellings = map[string][]string{
	"loopback": {
		"127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0x7f.0x0.0x0.0x1", "017700000001", "0177.0.0.1", "127.0.0.1.", "0", "0.0.0.0", "127.255.255.254",
		"localhost", "localhost.", "LOCALHOST", "x.localhost", "ip6-localhost", "[::1]", "[::]", "::1", "[::1]x", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[0:0:0:0:0:0:0:1]",
		"[::1%lo]", "[::1%25lo]", "[fe80::1%lo]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[fec0::1]", "%31%32%37.0.0.1", "127%2e0.0.1", "127.0.0.1%00", "127.0.0.1%20",
		"127\uff0e0\uff0e0\uff0e1", "\u2460\u2461\u2466.0.0.1", "127.0.0.1:80", "user@127.0.0.1", "good.test@127.0.0.1", "127.0.0.1#", "127.0.0.1/", "127.0.0.1\\", "127.0.0.1,good.test",
		"good.test,127.0.0.1", "good.test 127.0.0.1", "45.67.90.2", "[2a0e:97c0:1::2]", "[::ffff:45.67.90.2]", "10.200.0.1", "10.200.0.2", "0x0a.200.1", "255.255.255.255", "224.0.0.1", "[ff02::1]",
	},
	"metadata": {
		"169.254.169.254", "169.254.43518", "169.16689662", "2852039166", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376", "025177524776", "169.254.169.254.", "[::ffff:169.254.169.254]",
		"[::ffff:a9fe:a9fe]", "[::169.254.169.254]", "[::a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[fd00:ec2::254]", "fd00:ec2::254",
		"[fd00:ec2:0:0:0:0:0:254]", "[fe80::a9fe:a9fe%eth0]", "[fe80::a9fe:a9fe%25eth0]", "metadata", "metadata.google.internal", "instance-data", "169.254.169.254%00", "169%2e254.169.254",
		"169\u3002254\u3002169\u3002254", "\u2460\u2465\u2468.254.169.254", "good.test@169.254.169.254", "169.254.169.254#good.test", "169.254.169.254/.good.test", "100.100.100.200", "192.0.0.192",
		"10.1.2.3", "0x0a010203", "012.1.2.3", "[::ffff:10.1.2.3]", "192.168.0.1", "172.16.0.1", "100.64.0.1", "198.18.0.1", "[fc00::1]", "[fec0::1]", "[2001:db8::1]", "192.0.2.1", "240.0.0.1",
	},
	"evil": {
		"45.67.89.66", "759388482", "0x2d435942", "0x2d.0x43.0x59.0x42", "055.0103.0131.0102", "05520654502", "45.67.22850", "45.67.89.66.", "[::ffff:45.67.89.66]", "[::ffff:2d43:5942]", "[64:ff9b::2d43:5942]",
		"[2002:2d43:5942::]", "[2a0e:97c0:ffff::1]", "[2001:0:2d43:5942::1]", "evil.test", "evil.test.", "EVIL.TEST", "evil.test..", ".evil.test", "evil.test%00", "evil.test%00.good.test", "good.test%00evil.test",
		"good.test@evil.test", "good.test:80@evil.test", "evil.test#good.test", "evil.test#.good.test", "evil.test?.good.test", "evil.test/.good.test", "evil.test\\.good.test", "evil.test;good.test",
		"evil.test,good.test", "good.test,evil.test", "evil.test good.test", "evil.test\tgood.test", "evil\u3002test", "\uff45vil.test", "%65vil.test", "evil%2etest", "good.test.evil.test", "[evil.test]", "evil.test:80",
		"bad.good.test", "BAD.good.test", "bad.good.test.", "www.good.test", "x.good.test", "-.good.test", "*.good.test", "good.test\x00.evil.test", "evil.test\x00",
	},
}

func spelled(a []string, o *outcome.Outcome) error {
	list, ok := spellings[a[0]]
	if !ok {
		return fmt.Errorf("there are no spellings of %s", a[0])
	}
	last := errors.New("no spelling")
	for _, s := range list {
		one := outcome.Outcome{}
		if err := spelledAs(s, a[1], a[2], &one); err != nil {
			last = err
		} else {
			o.Reply += s + " "
		}
	}
	if o.Reply != "" {
		return nil
	}
	return last
}

func spelledAs(s, port, front string, o *outcome.Outcome) error {
	at := map[string]string{"connect": "10.200.0.1:3128", "absolute": "10.200.0.1:3128", "socks": "10.200.0.1:1080", "host": "good.test:80"}[front]
	c, err := dial(at, o)
	if err != nil {
		return err
	}
	defer c.Close()
	get := "GET / HTTP/1.1\r\nHost: " + s + "\r\nConnection: close\r\n\r\n"
	if port != "80" {
		get = "GET / HTTP/1.1\r\nHost: " + s + ":" + port + "\r\nConnection: close\r\n\r\n"
	}
	text := ""
	switch front {
	case "connect": // and what would follow, without waiting
		text = "CONNECT " + s + ":" + port + " HTTP/1.1\r\n\r\n" + get
	case "absolute":
		text = "GET http://" + s + ":" + port + "/ HTTP/1.1\r\nHost: good.test\r\nConnection: close\r\n\r\n"
	case "socks":
		text = "\x05\x01\x00\x05\x01\x00" + socksAddress(s) + string(binary.BigEndian.AppendUint16(nil, portNumber(port))) + get
	case "host":
		text = get
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	return hearAll(c, o)
}

// socksAddress is a name, whatever it looks like, but for what is in brackets, which is an address (RFC 1928, 5).
func socksAddress(s string) string {
	if inside, ok := strings.CutPrefix(s, "["); ok {
		if ip := net.ParseIP(strings.TrimSuffix(inside, "]")); ip != nil {
			return "\x04" + string(ip.To16())
		}
	}
	if ip := net.ParseIP(s).To4(); ip != nil {
		return "\x01" + string(ip)
	}
	return "\x03" + string([]byte{byte(len(s))}) + s
}

func portNumber(s string) (n uint16) {
	_, _ = fmt.Sscan(s, &n)
	return n
}

// hearAll hears until the other side has said nothing for a tenth of a second, and closes. It is OK if the marker was in it.
func hearAll(c net.Conn, o *outcome.Outcome) error {
	var got bytes.Buffer
	buf := make([]byte, 4096)
	wait := patience / 3
	for {
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		n, err := c.Read(buf)
		got.Write(buf[:n])
		if o.Reply = got.String(); err != nil && !bytes.Contains(got.Bytes(), []byte(outcome.Marker)) {
			return err
		} else if err != nil {
			return nil
		}
		wait = min(wait, 100*time.Millisecond)
	}
}
