package conformance

var network = []Need{
	{ID: "net.localhost", Does: "servers and clients on localhost, by IPv4 and by IPv6, by name", Script: python(`
import socket
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "localhost")):
    s = socket.socket(family); s.bind((address, 0)); s.listen()
    c = socket.create_connection((address, s.getsockname()[1])); a = s.accept()[0]
    c.sendall(b"hello"); assert a.recv(9) == b"hello"
s = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
socket.create_connection(("127.0.0.1", s.getsockname()[1])); socket.create_connection(("::1", s.getsockname()[1]))`)},
	{ID: "net.udp", Does: "UDP on localhost, connected and not", Script: python(`
import socket
a, b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
a.bind(("127.0.0.1", 0)); b.connect(a.getsockname()); b.send(b"x"); assert a.recv(9) == b"x"`)},
	{ID: "net.multicast", Does: "multicast on the loopback interface", Script: python(`
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 5353)); lo = socket.inet_aton("127.0.0.1")
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + lo)
c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
c.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, lo)
c.sendto(b"x", ("239.1.2.3", 5353)); s.settimeout(5); assert s.recv(9) == b"x"`)},
	{ID: "net.unix", Does: "Unix sockets in /tmp and abstract ones, with descriptors and credentials", Script: python(`
import array, os, socket, struct
for name in ("sock", "\0abstract-name"):
    s = socket.socket(socket.AF_UNIX); s.bind(name); s.listen()
    c = socket.socket(socket.AF_UNIX); c.connect(name); a = s.accept()[0]
    socket.send_fds(c, [b"x"], [0]); assert len(socket.recv_fds(a, 1, 1)[1]) == 1
    assert struct.unpack("3i", a.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1] == os.getuid()`)},
	{ID: "net.ports", Does: "servers at ports below 1024, of every user", Script: python(`
import socket
socket.create_server(("127.0.0.1", 80))`)},
	{ID: "net.look", Does: "looking at interfaces, addresses, routes and sockets: ip, ss", Needs: []string{"ip", "ss"}, Script: `
		ip -o addr | grep -q '10.200.0.2/30'
		ip route | grep -q '^default via 10.200.0.1'
		ss -tln >out`},
	{ID: "net.hostname", Does: "one's own host name resolves, and so does every name below localhost", Script: `
		getent hosts "$(hostname)"
		test "$(getent ahostsv4 app.localhost | head -1 | cut -d' ' -f1)" = 127.0.0.1`},
	{ID: "net.options", Does: "the usual socket options, sendfile, splice", Script: python(`
import os, socket
a, b = socket.socketpair()
s = socket.socket()
for level, option in ((socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.SOL_SOCKET, socket.SO_REUSEPORT), (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), (socket.IPPROTO_TCP, socket.TCP_FASTOPEN)):
    s.setsockopt(level, option, 1)
f = open("f", "w+b"); f.write(b"x" * 1000); f.flush()
assert os.sendfile(a.fileno(), f.fileno(), 0, 1000) == 1000 and len(b.recv(2000)) == 1000`)},
	{ID: "net.database", Does: "a database server, by TCP and by a Unix socket: redis", Needs: []string{"redis-server"}, Script: `
		redis-server --port 6399 --unixsocket $PWD/redis.sock --daemonize yes --save '' --dir $PWD >log
		i=0; until redis-cli -p 6399 ping 2>&1 | grep -q PONG; do i=$((i+1)); test $i -lt 50; sleep 0.1; done
		redis-cli -p 6399 set key value
		test "$(redis-cli -s $PWD/redis.sock get key)" = value
		redis-cli -p 6399 bgsave; redis-cli -p 6399 shutdown nosave`},
	{ID: "net.ping", Does: "ping, of localhost too", Never: "it takes a raw socket, and ICMP leads nowhere", Script: python(`
import socket
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)`)},
	{ID: "net.raw", Does: "raw and packet sockets: tcpdump", Never: "they forge and read what the proxy sees", Script: python(`
import socket
socket.socket(socket.AF_PACKET, socket.SOCK_RAW)`)},
	{ID: "net.configure", Does: "making interfaces, changing addresses and routes: VPNs, containers", Never: "the one interface is the wall", Needs: []string{"ip"}, Script: `ip link add here type veth peer name there`},
	{ID: "net.quic", Leaves: true, Does: "UDP to elsewhere: QUIC, NTP, WebRTC", Never: "only TCP has names that can be decided about; clients that can fall back to it", Script: python(`
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("45.67.89.66", 443)); s.send(b"x")
s.settimeout(5); s.recv(1000)`)},
}
