"""A certificate authority of one test run, a certificate for loopback, and others on demand."""

import base64
import datetime
import hashlib
import ipaddress
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def signed(subject, public_key, issuer, issuer_key, extensions, days=(-0.04, 1)):
    """`days` is the validity, from now."""
    now = datetime.datetime.now(datetime.timezone.utc)
    first, last = (now + datetime.timedelta(days=number) for number in days)
    builder = (x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
               .public_key(public_key).serial_number(x509.random_serial_number())
               .not_valid_before(first).not_valid_after(last))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())


class Authority:
    """Writes `ca.pem` and each leaf with its key into a folder."""

    def __init__(self, folder, title="test authority"):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.title = folder, title
        self.key = ec.generate_private_key(ec.SECP256R1())
        own = signed(title, self.key.public_key(), title, self.key, [(x509.BasicConstraints(True, 0), True)])
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(own.public_bytes(PEM))
        self.cert_file, self.key_file, self.pin = self.leaf()

    def leaf(self, hosts=("localhost",), addresses=("127.0.0.1", "::1"), days=(-0.04, 1), label="leaf"):
        """A certificate, its key, and its pin as `server.pins` wants it."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host) for host in hosts]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        leaf = signed("loopback", key.public_key(), self.title, self.key, [
            (x509.SubjectAlternativeName(names), False),
            (x509.BasicConstraints(False, None), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)], days)
        cert_file, key_file = (self.folder / f"{label}-{part}.pem" for part in ("cert", "key"))
        cert_file.write_bytes(leaf.public_bytes(PEM))
        key_file.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        spki = key.public_key().public_bytes(serialization.Encoding.DER,
                                             serialization.PublicFormat.SubjectPublicKeyInfo)
        return cert_file, key_file, base64.b64encode(hashlib.sha256(spki).digest()).decode()

    def server_context(self, maximum=None, **leaf):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert_file, key_file, _ = self.leaf(**leaf) if leaf else (self.cert_file, self.key_file, self.pin)
        context.load_cert_chain(cert_file, key_file)
        if maximum:
            context.maximum_version = maximum
        return context
