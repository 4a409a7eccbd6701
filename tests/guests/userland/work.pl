# Hashes, strings, sorting and floating point, for work.sh.
my ($sum, %text) = (0);
for my $i (1 .. 20000) {
    $sum += sin($i) * exp(1 / $i) + sqrt($i)**1.1;
    $text{$i % 997} .= chr(33 + $i % 90);
}
printf "%.15g %s\n", $sum, join ",", map { length $text{$_} } (sort { $a <=> $b } keys %text)[0 .. 9];
my @numbers = sort { $a <=> $b } map { $_ * 7919 % 100003 } 1 .. 10000;
print "$numbers[0] $numbers[4999] $numbers[-1]\n";
