"""A page of prose as good web pages have it: what cleaning leaves as it is and rules keep."""

from __future__ import annotations

PAGE = """\
A feira de sábado começa antes do sol. Quem chega às cinco encontra os caminhões ainda descarregando e o \
cheiro de coentro misturado ao de café. Dona Celina monta a barraca sozinha, porque o filho foi trabalhar na \
cidade, e mesmo assim não aceita ajuda de ninguém.
O peixe vem da lagoa, que fica a duas horas de estrada. Durante a semana, os pescadores saem à noite, quando \
a água esfria e as redes enchem mais depressa. Eles contam que o segredo é conhecer o vento: se sopra do \
mar, melhor ficar em casa.
Perto da igreja há uma banca de livros usados. O dono, um professor aposentado, guarda para os fregueses \
os romances que acha bons e esconde os outros embaixo da mesa. Ninguém sabe ao certo se ele vende ou empresta.
Ao meio-dia tudo termina. As lonas são dobradas, os cachorros aproveitam o que sobrou, e a praça volta a ser \
só uma praça, com bancos vazios e sombra de amendoeira. Na semana seguinte, a cidade inteira aparece outra \
vez, como se fosse a primeira.
"""
