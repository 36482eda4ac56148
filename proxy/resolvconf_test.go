package proxy

import (
	"io/fs"
	"strings"
	"testing"
)

func TestKeptServers(t *testing.T) {
	var conf string
	var failure error
	k := &keptServers{read: func() ([]byte, error) { return []byte(conf), failure }}
	for _, step := range []struct {
		what, conf string
		failure    error
		want       string // instead of the two default servers, and of 192.0.2.9
	}{
		{"never read", "", fs.ErrPermission, "127.0.0.1:53 [::1]:53 192.0.2.9:53"},
		{"no file", "", fs.ErrNotExist, "127.0.0.1:53 [::1]:53 192.0.2.9:53"},
		{
			"two servers", "# nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver name.test\nnameserver fe80::1%eth0 # router\noptions edns0\n",
			nil, "127.0.0.1:53 [::1]:53 192.0.2.9:53",
		},
		{"replaced", "", fs.ErrPermission, "192.0.2.2:53 [fe80::1%eth0]:53 192.0.2.9:53"},
		{"removed", "", fs.ErrNotExist, "127.0.0.1:53 [::1]:53 192.0.2.9:53"},
		{"one server", "nameserver 192.0.2.3\n", nil, "127.0.0.1:53 [::1]:53 192.0.2.9:53"},
		{"replaced again", "", &fs.PathError{Op: "open", Err: fs.ErrPermission}, "192.0.2.3:53 192.0.2.3:53 192.0.2.9:53"},
	} {
		conf, failure = step.conf, step.failure
		got := []string{k.instead("127.0.0.1:53"), k.instead("[::1]:53"), k.instead("192.0.2.9:53")}
		if strings.Join(got, " ") != step.want {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
	k.keep([]byte("nameserver 192.0.2.7\n"))
	if got := k.instead("127.0.0.1:53"); got != "192.0.2.7:53" {
		t.Errorf("told by its parent: %s", got)
	}
	if got := nameServers(strings.Repeat("nameserver 192.0.2.1\n", 5)); len(got) != 3 {
		t.Errorf("%d servers", len(got))
	}
}
